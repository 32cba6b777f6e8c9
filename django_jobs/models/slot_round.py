"""The leader's round of the concurrency keys: what a process that died has left undone, and what nobody else sees.

Jobs of paused queues give their slots back, and get new ones when the pause ends; a limit that an operator has changed counts;
slots of deleted jobs are given out. The rules of ``admission`` hold here too.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db.models import Exists, OuterRef

from ..states import KEYED, JobState
from .admission import KEYS_AT_ONCE, declare, every_limit, give_out, offer, take_back
from .database import exclusive, from_now, lock_free_rows
from .limit import Limit
from .queue import Queue

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet

# For how long (seconds) the leader looks at keys before it comes to its other duties.
LONGEST_LOOK = 0.1
UNUSED_AFTER = timedelta(hours=1)


class Round:
    """The leader's look at all keys, some with each call: for what a process that died has left undone."""

    def __init__(self) -> None:
        self._after = ""

    def look(self, jobs: JobQuerySet) -> int:
        """Do what is to be done for the next keys; return how many jobs have moved."""
        until = time.monotonic() + LONGEST_LOOK
        moved = give_back_paused(jobs)
        while True:
            moved += self._look_at_some(jobs)
            if not self._after:
                return moved + _adopt(jobs)
            if time.monotonic() >= until:
                return moved

    def _look_at_some(self, jobs: JobQuerySet) -> int:
        page = list(every_limit(jobs).filter(key__gt=self._after).values_list("key", "most", "taken")[:KEYS_AT_ONCE])
        self._after = "" if len(page) < KEYS_AT_ONCE else page[-1][0]
        moved = 0
        if over := [key for key, most, taken in page if taken > most]:
            with exclusive():
                moved = take_back(jobs, over)
        return moved + give_out(jobs, [key for key, most, taken in page if taken < most]).moved


def give_back_paused(jobs: JobQuerySet) -> int:
    """Take the slots from ready jobs of paused queues, and offer them to others; return how many there were."""
    paused = list(Queue.objects.using(jobs.db).paused().values_list("name", flat=True))
    if not paused:
        return 0
    with exclusive():
        ready = lock_free_rows(jobs.keyed(JobState.READY).filter(queue_name__in=paused))
        rows = list(ready.values_list("pk", "concurrency_key", "concurrency_limit")[: 2 * KEYS_AT_ONCE])
        moved = jobs.block([pk for pk, _, _ in rows])
        offer(jobs, {key: limit for _, key, limit in rows})
    return moved


def _adopt(jobs: JobQuerySet) -> int:
    """Make the rows of keys that have none: their maker's transaction was rolled back after somebody relied on it."""
    has_row = Exists(Limit.objects.using(jobs.db).filter(key=OuterRef("concurrency_key")))
    rows = jobs.keyed(JobState.BLOCKED).exclude(has_row).values_list("concurrency_key", "concurrency_limit")
    # Distinct: the jobs of one key whose row cannot be made now must not hide the others.
    limits = dict(rows.order_by().distinct()[:KEYS_AT_ONCE])
    if not limits:
        return 0
    with exclusive():
        declare(jobs.db, limits, is_declared=False)
    return give_out(jobs, limits).moved


def forget_unused(jobs: JobQuerySet) -> int:
    """Delete the rows of keys that nobody has used for an hour; the next job makes its row anew."""
    unused = Limit.objects.using(jobs.db).filter(override=None, used_at__lt=from_now(-UNUSED_AFTER))
    for state in KEYED:
        unused = unused.exclude(Exists(jobs.keyed(state).filter(concurrency_key=OuterRef("key"))))
    with exclusive():
        keys = list(lock_free_rows(unused.order_by("key")).values_list("key", flat=True)[:KEYS_AT_ONCE])
        return Limit.objects.using(jobs.db).filter(key__in=keys).delete()[0]
