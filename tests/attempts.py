"""One attempt of a job at a time, in the test's own thread: enqueue, claim, run, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from asgiref.sync import async_to_sync

from django_jobs.context import Progress, ignore_progress
from django_jobs.models import Attempt, Job, Worker
from django_jobs.outcomes import ClaimedJob, Outcome
from django_jobs.worker.execution import make_runner
from django_jobs.worker.middleware import Factory
from django_jobs.worker.window import Window

from .rows import WORKER, claim, row, start_worker, write


def claimed_job(task: Any, *args: Any, **kwargs: Any) -> ClaimedJob:
    """Enqueue a job with these arguments and claim it, for a worker that is started if need be."""
    if not Worker.objects.leased().filter(worker_id=WORKER).exists():
        start_worker()
    task.enqueue(*args, **kwargs)
    return claim(limit=1, queues=[task.queue_name])[0]


def run(
    job: ClaimedJob,
    factories: Sequence[Factory] = (),
    window: Window | None = None,
    report: Callable[[int, Progress], None] = ignore_progress,
) -> Outcome:
    """Run one attempt of a claimed job here and return its outcome, unwritten."""
    return make_runner(list(factories), report).execute(job, window or Window())


def run_async(job: ClaimedJob, factories: Sequence[Factory] = (), window: Window | None = None) -> Outcome:
    """Run one attempt of a claimed job of an ``async def`` task here and return its outcome, unwritten."""
    runner = make_runner(list(factories), ignore_progress)
    return async_to_sync(runner.aexecute)(job, window or Window())


def ended(task: Any, *args: Any) -> Job:
    """Run one attempt of a new job, write its outcome, and return the row."""
    job = claimed_job(task, *args)
    write(run(job))
    return row(job.id)


def tried_again(pk: int) -> Job:
    """Run the next attempt of a job that waits for its retry, write its outcome, and return the row."""
    Job.objects.filter(pk=pk).stage()
    job = claim(limit=1, queues=[row(pk).queue_name])[0]
    write(run(job))
    return row(pk)


def history(job: Any) -> list[Attempt]:
    """Return the attempts of a job that did not succeed."""
    return list(Attempt.objects.filter(job_id=job.id).order_by("number"))
