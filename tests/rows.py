"""Rows for tests, brought into each state by the verbs, as a worker does it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection

from django_jobs.models import Job, Worker
from django_jobs.models.completion import Written, write_outcomes
from django_jobs.models.database import exclusive
from django_jobs.outcomes import ClaimedJob, Outcome
from django_jobs.states import JobState

from . import tasks

WORKER = "w1"
LEASE = timedelta(seconds=30)
HOUR = timedelta(hours=1)

# The verb with which a worker ends a job in this state.
_ENDS = {JobState.SUCCEEDED: "succeed", JobState.FAILED: "fail", JobState.CANCELLED: "cancel"}

_numbers = itertools.count()


def start_worker(worker_id: str = WORKER, lease: timedelta = LEASE, **fields: Any) -> str:
    """Register a worker process and return its id."""
    Worker.objects.register(worker_id, lease, **{"hostname": "here", "pid": 1, **fields})
    return worker_id


def end_lease(worker_id: str = WORKER) -> None:
    """Let the lease of a worker end now, as if it had been silent for long."""
    Worker.objects.extend([worker_id], timedelta(seconds=-1))


def claim(worker_id: str = WORKER, limit: int = 10, queues: Sequence[str] = ("default",)) -> list[ClaimedJob]:
    """Claim jobs as the worker's exchange does."""
    with exclusive():
        return Job.objects.claim(worker_id, queues, limit)


def outcome(job: ClaimedJob, verb: str, **values: Any) -> Outcome:
    return Outcome(job=job, verb=verb, **values)


def write(*outcomes: Outcome, worker_id: str = WORKER) -> Written:
    """Write outcomes as the worker's exchange does."""
    with exclusive():
        return write_outcomes(worker_id, outcomes)


def claimed(task: Any = tasks.noop, worker_id: str = WORKER, **using: Any) -> ClaimedJob:
    """Enqueue a job on a queue of its own and claim it. The worker must have been started."""
    queue_name = f"queue-{next(_numbers)}"
    task.using(**{"queue_name": queue_name, **using}).enqueue()
    return claim(worker_id, 1, [using.get("queue_name", queue_name)])[0]


def job_in(state: JobState, **using: Any) -> Job:
    """Return a job in this state; one that has run did so on WORKER, which is started if need be."""
    if not Worker.objects.leased().filter(worker_id=WORKER).exists():
        start_worker()
    if state == JobState.SCHEDULED:
        return row(tasks.noop.using(run_after=HOUR, **using).enqueue().id)
    if state == JobState.RUNNING:
        return row(claimed(**using).id)
    if state in _ENDS:
        job = claimed(**using)
        write(outcome(job, _ENDS[state]))
        return row(job.id)
    job = row(tasks.noop.using(**using).enqueue().id)
    if state != JobState.READY:
        # Nothing leads into the other states yet.
        Job.objects.filter(pk=job.pk).update(state=state)
    return row(job.pk)


def database_time() -> datetime:
    """Return what the database takes for the time, as it writes it into rows."""
    is_sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        cursor.execute("SELECT STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')" if is_sqlite else "SELECT STATEMENT_TIMESTAMP()")
        [time] = cursor.fetchone()
    return datetime.fromisoformat(time).replace(tzinfo=UTC) if is_sqlite else time


def is_due_in(job: Job, seconds: float, since: datetime, spread: float = 0.0) -> bool:
    """Say whether a job waits for so many seconds, more or less, from some moment between ``since`` and now.

    However long it took to write it, and whatever was written before it.
    """
    least, most = timedelta(seconds=seconds - spread), timedelta(seconds=seconds + spread)
    # Fractions are rounded.
    step = timedelta(milliseconds=1)
    return since + least - step <= job.run_after <= database_time() + most + step


def row(pk: int | str) -> Job:
    """Return the job as it is in the database now."""
    return Job.objects.get(pk=pk)


def values(pk: int) -> dict[str, Any]:
    """Return the columns of a job as they are now, or nothing if it is gone."""
    return Job.objects.filter(pk=pk).values().first() or {}


def state_of(job: Any) -> JobState:
    """Return the state of a row, a claimed job or a result, as it is in the database now."""
    return JobState(Job.objects.values_list("state", flat=True).get(pk=job.id))
