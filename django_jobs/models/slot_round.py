"""The leader's round of the concurrency keys: what a process that died has left undone, and what nobody else sees.

Jobs of paused queues give their slots back, and get new ones when the pause ends; a limit that an operator has changed counts;
slots of deleted jobs are given out. The rules of ``admission`` hold here too.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import connections
from django.db.models import OuterRef

from ..states import KEYED, JobState
from .admission import KEYS_AT_ONCE, declare, every_limit, give_out, is_any, offer, take_back
from .compiled import Hole, compile_select
from .database import exclusive, from_now, lock_free_rows
from .limit import Limit
from .queue import Queue

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet

# For how long (seconds) the leader looks at keys before it comes to its other duties.
LONGEST_LOOK = 0.1
UNUSED_AFTER = timedelta(hours=1)
# How often (seconds) it looks for keys without a row, which is a lookup for each key that somebody waits for.
ADOPT_INTERVAL = 10.0

_LAST, _ONE = Hole("keys.key"), Hole("1")
# From key to key along the index: to read all blocked jobs would take as long as there are many of one key.
_WITHOUT_ROW = """
WITH RECURSIVE keys (key) AS (
    SELECT CAST('' AS varchar(255))
    UNION ALL
    SELECT CAST(({following}) AS varchar(255)) FROM keys WHERE keys.key IS NOT NULL
)
SELECT keys.key FROM keys
WHERE keys.key > '' AND NOT EXISTS (SELECT 1 FROM {limits} AS known WHERE known.key = keys.key) LIMIT {most}
"""


class Round:
    """The leader's look at all keys, some with each call: for what a process that died has left undone."""

    def __init__(self) -> None:
        self._after = ""
        self._adopt_at = 0.0

    def look(self, jobs: JobQuerySet) -> int:
        """Do what is to be done for the next keys; return how many jobs have moved."""
        until = time.monotonic() + LONGEST_LOOK
        moved = give_back_paused(jobs)
        while True:
            moved += self._look_at_some(jobs)
            if not self._after:
                return moved + self._adopt_if_due(jobs)
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

    def _adopt_if_due(self, jobs: JobQuerySet) -> int:
        now = time.monotonic()
        if now < self._adopt_at:
            return 0
        self._adopt_at = now + ADOPT_INTERVAL
        return _adopt(jobs)


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
    connection = connections[jobs.db]
    blocked = jobs.keyed(JobState.BLOCKED).filter(concurrency_key__gt=_LAST).order_by("concurrency_key")
    following = compile_select(blocked.values_list("concurrency_key"), jobs.db, _ONE)
    limits_table = connection.ops.quote_name(Limit._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(_WITHOUT_ROW.format(following=following, limits=limits_table, most=KEYS_AT_ONCE))
        keys = [key for (key,) in cursor.fetchall()]
    if not keys:
        return 0
    limits = {
        key: jobs.keyed(JobState.BLOCKED)
        .filter(concurrency_key=key)
        .values_list("concurrency_limit", flat=True)
        .first()
        for key in keys
    }
    with exclusive():
        declare(jobs.db, limits, is_declared=False)
    return give_out(jobs, limits).moved


def forget_unused(jobs: JobQuerySet) -> int:
    """Delete the rows of keys that nobody has used for an hour; the next job makes its row anew."""
    unused = Limit.objects.using(jobs.db).filter(override=None, used_at__lt=from_now(-UNUSED_AFTER))
    for state in KEYED:
        unused = unused.exclude(is_any(jobs.keyed(state).filter(concurrency_key=OuterRef("key"))))
    with exclusive():
        keys = list(lock_free_rows(unused.order_by("key")).values_list("key", flat=True)[:KEYS_AT_ONCE])
        return Limit.objects.using(jobs.db).filter(key__in=keys).delete()[0]
