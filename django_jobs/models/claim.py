"""How ready jobs are found and locked for a worker: the candidates of a claim.

One query per queue, in the order of the ready index, so that the cost does not grow with other rows. The
candidates of all queues are merged here: larger priority first, then first in, first out. ``JobQuerySet.claim``,
the only caller, moves those that are locked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import Case, Exists, F, TextField, Value, When
from django.db.models.functions import Now

from ..outcomes import ClaimedJob, PastAttempt
from ..states import ERROR_OUTCOMES
from .attempt import Attempt
from .database import lock_free_rows
from .queue import Queue

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet

# How many earlier attempts a running job knows of.
LONGEST_HISTORY = 100

# Plain values: making model instances costs as much again as the whole claim.
_COLUMNS = (
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
    "claimed_at",
)


def lock_candidates(ready: JobQuerySet, queue_names: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """Lock the up to ``limit`` jobs of these queues that come first, and return them as dicts of columns, in order."""
    if len(queue_names) == 1:
        return _lock(ready, queue_names[0], limit)
    # Looked at before anything is locked: to lock ``limit`` rows of each queue would hide from other workers those
    # that are not taken.
    candidates = _first_of_all(ready, queue_names, limit)
    found: list[dict[str, Any]] = []
    for name, share in Counter(row["queue_name"] for row in candidates[:limit]).items():
        found += _lock(ready, name, share)
    if len(found) < min(limit, len(candidates)):
        found += _fill_up(ready, dict.fromkeys(row["queue_name"] for row in candidates), limit, found)
    return sorted(found, key=_rank)


def _fill_up(
    ready: JobQuerySet, queue_names: Iterable[str], limit: int, found: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Lock other jobs of these queues in the place of those that another worker is just taking."""
    more: list[dict[str, Any]] = []
    others = ready.exclude(pk__in=[row["id"] for row in found])
    for name in queue_names:
        room = limit - len(found) - len(more)
        if room:
            more += _lock(others, name, room)
    return more


def _lock(ready: JobQuerySet, queue_name: str, limit: int) -> list[dict[str, Any]]:
    in_order = lock_free_rows(_in_order(ready, queue_name))
    return list(in_order.annotate(claimed_at=Now()).values(*_COLUMNS)[:limit])


def _first_of_all(ready: JobQuerySet, queue_names: Sequence[str], limit: int) -> list[Any]:
    """Return the first ``limit`` jobs of each queue, unlocked, in the order of all."""
    first: list[Any] = []
    for name in queue_names:
        first += list(_in_order(ready, name).values("id", "priority", "queue_name")[:limit])
    return sorted(first, key=_rank)


def _in_order(ready: JobQuerySet, queue_name: str) -> JobQuerySet:
    # The pause is looked at in the claim itself: once it has committed, no job of the queue begins.
    is_paused = Exists(Queue.objects.using(ready.db).paused().filter(name=queue_name))
    return ready.filter(~is_paused, queue_name=queue_name).order_by("-priority", "id")


def _rank(row: dict[str, Any]) -> tuple[int, int]:
    return -row["priority"], row["id"]


def with_history(rows: Sequence[dict[str, Any]], worker_id: str, using: str) -> list[ClaimedJob]:
    """Make claimed jobs of the chosen rows, each with its earlier attempts (one query if any has some)."""
    histories: dict[int, list[PastAttempt]] = {}
    retried = [row["id"] for row in rows if row["attempt"]]
    if retried:
        past = Attempt.objects.using(using).filter(job_id__in=retried).order_by("job_id", "number")
        # A job may have been snoozed thousands of times.
        recent = past.filter(number__gt=F("job__attempt") - LONGEST_HISTORY)
        shown = Case(When(outcome__in=ERROR_OUTCOMES, then="traceback"), default=Value(""), output_field=TextField())
        for job_id, *values in recent.values_list("job_id", "worker_id", "outcome", "exception_class", shown):
            histories.setdefault(job_id, []).append(_past_attempt(*values))
    return [_claimed(row, worker_id, tuple(histories.get(row["id"], ()))) for row in rows]


def _past_attempt(worker_id: str, outcome: str, exception_class: str, traceback: str) -> PastAttempt:
    is_error = outcome in ERROR_OUTCOMES
    return PastAttempt(worker_id, exception_class if is_error else "", traceback)


def _claimed(row: dict[str, Any], worker_id: str, history: tuple[PastAttempt, ...]) -> ClaimedJob:
    values = dict(row)
    claimed_at = values.pop("claimed_at")
    values |= {"attempt": row["attempt"] + 1, "started_at": row["started_at"] or claimed_at}
    return ClaimedJob(**values, last_attempted_at=claimed_at, worker_id=worker_id, history=history)
