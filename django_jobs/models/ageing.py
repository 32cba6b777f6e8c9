"""Ageing: jobs that have waited long get a larger priority, a step at a time, so that they do not starve.

A queue says after how long (``raise_after``, seconds) and by how much (``raise_by``). A job's n-th step comes when it has been
due for n times that long; at 100 there is no further one. Where it waits for another attempt that counts anew. It keeps its
place in time: among those of its new priority the older goes first, as ever. Nothing is taken from other jobs, and a claim
waits for none of this: rows that are locked are left out on both sides.

Each pass goes down the priorities of a queue along the ready index, a short look for each, and reads the first jobs of each
of them. So it costs the same however many are waiting, and a long backlog is raised in the order in which it is claimed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

from django.db.models import BooleanField, DurationField, ExpressionWrapper, F, Func, Q, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce, Now

from .. import notifications
from ..conf import LARGEST_PRIORITY, LONGEST_DURATION, SMALLEST_PRIORITY
from .claim import PLACE
from .database import exclusive, lock_free_rows
from .job import Job
from .job_queryset import JobQuerySet
from .queue import Queue

# Of each priority at most so many jobs are raised in one pass, which has them locked for some milliseconds, and so many
# are looked at: those in front may have been raised just before.
RAISED_AT_ONCE, LOOKED_AT = 500, 2000
# From the smallest priority to the largest there are no more; a row that says otherwise was written past us.
MOST_STEPS = LARGEST_PRIORITY - SMALLEST_PRIORITY


class Rule(NamedTuple):
    """What a queue says of its jobs that wait."""

    queue_name: str
    after: timedelta
    by: int


def raise_waiting() -> int:
    """Raise the priority of ready jobs that have waited too long, by one step each; return how many were raised.

    Safe to run twice at once: a job that another pass has locked or raised meanwhile is left to it. One query if no queue
    asks for it.
    """
    return sum(_raise_level(rule, priority) for rule in _rules() for priority in _levels(rule.queue_name))


def _rules() -> list[Rule]:
    """Return what the queues say. A row that says what cannot work, written past us, says nothing; nor does a pause."""
    queues = Queue.objects.filter(raise_after__gt=0, raise_after__lte=LONGEST_DURATION, raise_by__gt=0)
    queues = queues.exclude(pk__in=Queue.objects.paused().values("pk")).order_by("name")
    return [
        Rule(name, timedelta(seconds=seconds), by)
        for name, seconds, by in queues.values_list("name", "raise_after", "raise_by")
        if seconds is not None
    ]


def _levels(queue_name: str) -> Iterator[int]:
    """Yield the priorities of a queue's ready jobs that can be raised, the largest first: one is never met twice."""
    ready = Job.objects.ready().filter(queue_name=queue_name).order_by("-priority").values_list("priority", flat=True)
    priority: int | None = LARGEST_PRIORITY
    while (priority := ready.filter(priority__lt=priority).first()) is not None:
        yield priority


def _raise_level(rule: Rule, priority: int) -> int:
    level = Job.objects.ready().filter(queue_name=rule.queue_name, priority=priority, raised__lt=MOST_STEPS)
    # Looked at before anything is locked: most of the time nobody has waited too long.
    ids = _overdue(level, rule.after)
    if not ids:
        return 0
    with exclusive():
        free = list(lock_free_rows(level.filter(pk__in=ids)).values_list("pk", flat=True))
        larger = min(priority + rule.by, LARGEST_PRIORITY)
        raised = level.filter(pk__in=free).update(priority=larger, raised=F("raised") + 1)
        if raised:
            # A worker that found them locked looks again.
            notifications.hint(notifications.READY, rule.queue_name)
    return raised


def _overdue(level: JobQuerySet, after: timedelta) -> Sequence[int]:
    """Return the ids of the jobs to raise among the first of a priority."""
    # The times are compared in the database, as they are: nothing here has to read them.
    first = level.annotate(place=PLACE, since=Coalesce("run_after", "enqueued_at")).order_by("place")
    has_waited = ExpressionWrapper(Q(since__lte=Now() - _times(after, F("raised") + 1)), output_field=BooleanField())
    rows = first.values_list("pk", has_waited)[:LOOKED_AT]
    return [pk for pk, is_overdue in rows if is_overdue][:RAISED_AT_ONCE]


def _times(duration: timedelta, factor: Combinable) -> Func:
    """Return a multiple of a duration, as both databases write it: an interval, or a number of microseconds."""
    return Func(
        Value(duration, DurationField()),
        factor,
        template="(%(expressions)s)",
        arg_joiner=" * ",
        output_field=DurationField(),
    )
