"""Taking jobs from dead workers, in one transaction with marking the workers as lost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from django.db.models.functions import Now

from .. import notifications, signals
from ..states import AttemptOutcome, JobState
from .attempt import Attempt
from .completion import start_of_attempt
from .database import exclusive, lock_free_rows
from .job import Job
from .worker import Worker

# A worker holds tens of jobs, rarely thousands; the rest follows with the next pass.
RESCUE_BATCH = 1000


def rescue_lost(dead: Collection[str] = (), reason: str = "It sent no sign of life until its lease had ended.") -> int:
    """Mark workers without a live lease, and those known to be dead, as lost; take their running jobs.

    Return how many jobs were taken. Each gets an Attempt "crashed" that gives ``reason``. Safe to run at
    any time and twice at once: the rows are locked, and late writers are fenced off.
    """
    with exclusive():
        lost = Worker.objects.mark_lost(dead)
        columns = ("pk", "attempt", "max_attempts", "worker_id", "task_path", "queue_name")
        orphans = list(lock_free_rows(Job.objects.orphans().order_by("pk")).values(*columns)[:RESCUE_BATCH])
        if orphans:
            _record_crash(orphans, reason)
            Job.objects.rescue([(row["pk"], row["attempt"] < row["max_attempts"]) for row in orphans])
        for queue_name in {row["queue_name"] for row in orphans}:
            notifications.hint(notifications.READY, queue_name)
    _announce(lost, orphans)
    return len(orphans)


def _record_crash(orphans: Sequence[dict[str, Any]], reason: str) -> None:
    Attempt.objects.bulk_create(
        [
            Attempt(
                job_id=row["pk"],
                number=row["attempt"],
                worker_id=row["worker_id"],
                started_at=start_of_attempt(row["pk"]),
                ended_at=Now(),
                outcome=AttemptOutcome.CRASHED,
                exception_class="django_jobs.exceptions.WorkerLost",
                message=f"Worker {row['worker_id']} was lost while it held this job. {reason}",
            )
            for row in orphans
        ],
        ignore_conflicts=True,
    )


def _announce(lost: Sequence[str], orphans: Sequence[dict[str, Any]]) -> None:
    for worker_id in lost:
        signals.send(signals.worker_lost, Worker, worker_id=worker_id)
    if not orphans or not signals.job_rescued.receivers:
        return
    states = dict(Job.objects.filter(pk__in=[row["pk"] for row in orphans]).values_list("pk", "state"))
    for row in orphans:
        told = {name: row[name] for name in ("task_path", "queue_name", "attempt", "worker_id")}
        signals.send(signals.job_rescued, Job, job_id=row["pk"], state=JobState(states[row["pk"]]), **told)
