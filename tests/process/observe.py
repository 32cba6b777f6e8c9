"""What the tests ask about jobs and workers, and what they wait for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django_jobs import enqueue_many
from django_jobs.models import Attempt, Job, Worker
from django_jobs.states import FINISHED, AttemptOutcome, JobState
from tests import jobs
from tests.processes import PATIENCE, Command, wait_until, workers_of

__all__ = ["PATIENCE"]


def state_of(job: Any) -> JobState:
    return JobState(Job.objects.values_list("state", flat=True).get(pk=job.id))


def row(job: Any) -> Job:
    return Job.objects.get(pk=job.id)


def wait_for_state(job: Any, state: JobState, timeout: float = PATIENCE) -> None:
    wait_until(lambda: state_of(job) == state, timeout=timeout, message=f"job {job.id} {state}, it is {state_of(job)}")


def wait_until_finished(jobs: Iterable[Any], timeout: float = PATIENCE) -> None:
    ids = [job.id for job in jobs]
    unfinished = Job.objects.filter(pk__in=ids).exclude(state__in=FINISHED)
    wait_until(lambda: not unfinished.exists(), timeout=timeout, message=f"the end of {len(ids)} jobs")


def states_of(jobs: Iterable[Any]) -> set[str]:
    return set(Job.objects.filter(pk__in=[job.id for job in jobs]).values_list("state", flat=True))


def outcomes_of(job: Any) -> list[str]:
    """Return the outcomes of the attempts that did not succeed, in order."""
    return list(Attempt.objects.filter(job=job.id).order_by("number").values_list("outcome", flat=True))


def crashes_of(job: Any) -> int:
    return outcomes_of(job).count(AttemptOutcome.CRASHED)


def worker_of(command: Command) -> Worker:
    """Return the row of the only worker of a command."""
    return workers_of(command).get()


def wait_for_another_worker(command: Command, than: Worker, timeout: float = PATIENCE) -> Worker:
    """Wait until a command has a running worker besides this one, and return it."""
    others = workers_of(command).exclude(pk=than.pk)
    return wait_until(others.first, timeout=timeout, message=f"another worker than {than.worker_id}")


def keep_busy_and_claim_ahead() -> tuple[list[Any], list[Any]]:
    """Have the only worker, with two threads, claim more than it can begin: return what it runs, and what waits.

    What it runs ends when the gate is opened. What waits would take no time; after a second it may have been given back.
    """
    # It has to know that jobs are short.
    wait_until_finished(jobs.write_nothing.enqueue_many([((), {})] * 300))
    # In one transaction, so that one claim finds them all.
    mixed = enqueue_many([*[(jobs.hold, (), {})] * 2, *[(jobs.touch, (), {})] * 20])
    busy, waiting = mixed[:2], mixed[2:]
    ids = [job.id for job in waiting]
    claimed, given_back = Job.objects.running().filter(pk__in=ids), Attempt.objects.filter(job__in=ids)
    wait_until(lambda: claimed.exists() or given_back.exists(), message="jobs claimed ahead")
    return busy, waiting
