"""How ready jobs are found and locked for a worker: the candidates of a claim.

One query per queue, in the order of the ready index, so that the cost does not grow with other rows. The
candidates of all queues are merged here: larger priority first, then first in, first out. Rows locked and not
chosen are free again when the claim's transaction ends, milliseconds later. ``JobQuerySet.claim``, the only
caller, moves the chosen ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import Exists
from django.db.models.functions import Now

from ..outcomes import ClaimedJob, PastAttempt
from ..states import ERROR_OUTCOMES
from .attempt import Attempt
from .database import lock_free_rows
from .queue import Queue

if TYPE_CHECKING:
    from .job_queryset import JobQuerySet

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
    """Lock up to ``limit`` jobs of each queue and return the ``limit`` that come first, as dicts of columns."""
    found: list[dict[str, Any]] = []
    for name in queue_names:
        # In the claim itself: once a pause has committed, no job of the queue begins.
        is_paused = Exists(Queue.objects.using(ready.db).paused().filter(name=name))
        in_order = lock_free_rows(ready.filter(~is_paused, queue_name=name).order_by("-priority", "id"))
        found += in_order.annotate(claimed_at=Now()).values(*_COLUMNS)[:limit]
    if len(queue_names) > 1:
        found.sort(key=lambda row: (-row["priority"], row["id"]))
    return found[:limit]


def with_history(rows: Sequence[dict[str, Any]], worker_id: str, using: str) -> list[ClaimedJob]:
    """Make claimed jobs of the chosen rows, each with its earlier attempts (one query if any has some)."""
    histories: dict[int, list[PastAttempt]] = {}
    retried = [row["id"] for row in rows if row["attempt"]]
    if retried:
        past = Attempt.objects.using(using).filter(job_id__in=retried).order_by("job_id", "number")
        for job_id, *values in past.values_list("job_id", "worker_id", "outcome", "exception_class", "traceback"):
            histories.setdefault(job_id, []).append(_past_attempt(*values))
    return [_claimed(row, worker_id, tuple(histories.get(row["id"], ()))) for row in rows]


def _past_attempt(worker_id: str, outcome: str, exception_class: str, traceback: str) -> PastAttempt:
    is_error = outcome in ERROR_OUTCOMES
    return PastAttempt(worker_id, exception_class if is_error else "", traceback if is_error else "")


def _claimed(row: dict[str, Any], worker_id: str, history: tuple[PastAttempt, ...]) -> ClaimedJob:
    values = dict(row)
    claimed_at = values.pop("claimed_at")
    values |= {"attempt": row["attempt"] + 1, "started_at": row["started_at"] or claimed_at}
    return ClaimedJob(**values, last_attempted_at=claimed_at, worker_id=worker_id, history=history)
