"""What a claim chooses from, and what it makes of the rows: the candidates in, claimed jobs out.

The order is that of the ready index, queue by queue: larger priority first, then first in, first out; a job that had to wait
for a slot of its concurrency key comes in when it gets it. So the cost of a claim does not grow with other rows. ``JobQuerySet.claim`` moves the chosen rows; on PostgreSQL as one statement, see ``turn``.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import DataError
from django.db.models import BigIntegerField, Case, DateTimeField, Exists, F, QuerySet, TextField, Value, When
from django.db.models.functions import Cast, Coalesce, Now

from ..outcomes import ClaimedJob, PastAttempt, Unreadable
from ..states import ERROR_OUTCOMES
from .attempt import Attempt
from .database import lock_free_rows
from .queue import Queue

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet

logger = logging.getLogger("django_jobs")

# How many earlier attempts a running job knows of.
LONGEST_HISTORY = 100

# Where a ready job stands among those of its priority: as it was enqueued, or got the slot that it had to wait for.
PLACE = Coalesce("position", "id", output_field=BigIntegerField())

# Plain values: making model instances costs as much again as the whole claim.
COLUMNS = (
    "id",
    "task_path",
    "queue_name",
    "priority",
    "args",
    "kwargs",
    "attempt",
    "max_attempts",
    "run_after",
    "enqueued_at",
    "started_at",
    "meta",
    "backend",
    "timeout",
    "concurrency_key",
    "position",
)
_PRIORITY, _ATTEMPT, _POSITION = (COLUMNS.index(name) for name in ("priority", "attempt", "position"))
_EMPTY_JSON: dict[str, Callable[[], Any]] = {"[]": list, "{}": dict}

# Django's field would read what is in the rows: one that cannot be read would keep all others from being claimed.
_AS_TEXT = [Cast(name, TextField()) if name in ("args", "kwargs", "meta") else name for name in COLUMNS]

# What Django raises for a text that is no time; such a row was written past us.
_NO_TIME = (DataError, ValueError, TypeError, AttributeError)
_TIMES = ("run_after", "enqueued_at", "started_at")
_WITHOUT_TIMES = [
    Cast(Value(None), DateTimeField()) if name in _TIMES else column
    for name, column in zip(COLUMNS, _AS_TEXT, strict=True)
]

# The columns of a chosen job, with texts for those of JSON, and behind them the database's now.
Row = tuple[Any, ...]


class Kind(NamedTuple):
    """The tasks that a claim is for: those with one of the ``paths``, or all ``without`` them."""

    paths: frozenset[str] = frozenset()
    is_without: bool = True

    def of(self, jobs: JobQuerySet) -> JobQuerySet:
        if not self.paths:
            return jobs
        return jobs.exclude(task_path__in=self.paths) if self.is_without else jobs.filter(task_path__in=self.paths)


ANY = Kind()


def in_order(ready: JobQuerySet, queue_name: Any) -> QuerySet[Any, Any]:
    """Return the ready jobs of a queue in the order in which they are claimed; none while the queue is paused.

    Their ``place`` is what counts after the priority.
    """
    # The pause is looked at in the claim itself: once it has committed, no job of the queue begins.
    is_paused = Exists(Queue.objects.using(ready.db).paused().filter(name=queue_name))
    rows = ready.annotate(place=PLACE).filter(~is_paused, queue_name=queue_name)
    return rows.order_by("-priority", "place")


# Where a turn cannot be one statement


class Candidates:
    """The ready jobs of some kind, locked as they are taken."""

    def __init__(self, ready: JobQuerySet) -> None:
        self._ready = ready
        self._taken: list[int] = []

    def first(self, most: Mapping[str, int], limit: int) -> list[str]:
        found = []
        for turn, (name, room) in enumerate(most.items()):
            numbers: Counter[int] = Counter()
            for priority, place in in_order(self._ready, name).values_list("priority", "place")[: min(room, limit)]:
                found.append((-priority, numbers[priority], turn, place, name))
                numbers[priority] += 1
        return [name for *_, name in sorted(found)[:limit]]

    def take(self, queue_name: str, limit: int) -> list[Row]:
        rows = _lock(self._ready.exclude(pk__in=self._taken), queue_name, limit)
        self._taken += [row[0] for row in rows]
        return rows


def _lock(ready: JobQuerySet, queue_name: str, limit: int) -> list[Row]:
    chosen = lock_free_rows(in_order(ready, queue_name))
    try:
        return list(chosen.values_list(*_AS_TEXT, Now())[:limit])
    except _NO_TIME as error:
        logger.warning("A claimed job has a time that cannot be read, and runs without it: %s", error)
        return [_read_alone(chosen, pk) for pk in list(chosen.values_list("pk", flat=True)[:limit])]


def _read_alone(chosen: QuerySet[Any], pk: int) -> Row:
    """Return the row of one job, without its times if they cannot be read."""
    job = chosen.filter(pk=pk)
    try:
        return job.values_list(*_AS_TEXT, Now()).get()
    except _NO_TIME:
        return job.values_list(*_WITHOUT_TIMES, Now()).get()


# From rows to jobs


def _from_json(text: str) -> Any:
    """Return what a text of JSON holds; ``Unreadable`` for what Python cannot hold."""
    empty = _EMPTY_JSON.get(text)
    if empty is not None:
        return empty()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return Unreadable(error)


def with_history(rows: Sequence[Row], worker_id: str, using: str) -> list[ClaimedJob]:
    """Make claimed jobs of the chosen rows, in order, each with its earlier attempts (one query if any has some)."""
    histories: dict[int, list[PastAttempt]] = {}
    retried = [row[0] for row in rows if row[_ATTEMPT]]
    if retried:
        past = Attempt.objects.using(using).filter(job_id__in=retried).order_by("job_id", "number")
        # A job may have been snoozed thousands of times.
        recent = past.filter(number__gt=F("job__attempt") - LONGEST_HISTORY)
        shown = Case(When(outcome__in=ERROR_OUTCOMES, then="traceback"), default=Value(""), output_field=TextField())
        for job_id, *values in recent.values_list("job_id", "worker_id", "outcome", "exception_class", shown):
            histories.setdefault(job_id, []).append(_past_attempt(*values))
    ordered = sorted(rows, key=place_of)
    return [_claimed(row, worker_id, tuple(histories.get(row[0], ()))) for row in ordered]


def place_of(row: Row) -> tuple[int, int]:
    """Return what the rows of a queue are claimed in the order of: priority, the largest first, and place."""
    position = row[_POSITION]
    return -row[_PRIORITY], row[0] if position is None else position


def _past_attempt(worker_id: str, outcome: str, exception_class: str, traceback: str) -> PastAttempt:
    is_error = outcome in ERROR_OUTCOMES
    return PastAttempt(worker_id, outcome, exception_class if is_error else "", traceback)


def _claimed(row: Row, worker_id: str, history: tuple[PastAttempt, ...]) -> ClaimedJob:
    (
        pk, task_path, queue_name, priority, args, kwargs, attempt, max_attempts,
        run_after, enqueued_at, started_at, meta, backend, timeout, concurrency_key, _position, now,
    ) = row  # fmt: skip
    return ClaimedJob(
        pk,
        task_path,
        queue_name,
        priority,
        _from_json(args),
        _from_json(kwargs),
        attempt + 1,
        max_attempts,
        run_after,
        enqueued_at,
        started_at or now,
        now,
        _from_json(meta),
        backend,
        worker_id,
        history,
        timeout,
        concurrency_key,
    )
