"""A row that is odd spoils itself only: not the thread that takes it, and not the jobs beside it."""

from __future__ import annotations

from typing import Any

import pytest

from django_jobs.exceptions import InvalidArgument
from django_jobs.models import Attempt, Job
from django_jobs.states import AttemptOutcome, JobState

from . import tasks
from .attempts import claimed_job, history, run, run_async
from .rows import claim, outcome, row, start_worker, write
from .worker_tasks import do, raising

pytestmark = pytest.mark.django_db


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("where", ["argument", "meta"])
def test_what_is_nested_too_deeply_is_refused_when_it_is_enqueued(where: str) -> None:
    task = tasks.noop.using(meta={"m": nested(200)}) if where == "meta" else tasks.noop
    args = [nested(200)] if where == "argument" else []

    with pytest.raises(InvalidArgument, match="nested too deeply"):
        task.enqueue(*args)


def test_a_job_whose_meta_cannot_even_be_read_fails_for_good_and_does_not_raise() -> None:
    job = claimed_job(tasks.noop)
    # As a row may hold it that was written past enqueue.
    job = job._replace(meta={"m": nested(5000)})

    ended = run(job)

    assert (ended.verb, ended.failure.exception_class) == ("fail", "builtins.RecursionError")


def test_so_does_an_asynchronous_one() -> None:
    job = claimed_job(tasks.add_async, 1, 2)
    job = job._replace(meta={"m": nested(5000)})

    ended = run_async(job)

    assert (ended.verb, ended.failure.exception_class) == ("fail", "builtins.RecursionError")


def test_snoozes_do_not_lengthen_the_delay_of_the_first_failure() -> None:
    start_worker()
    pk = int(do.enqueue(raising(ValueError("no"))).id)
    for _ in range(7):
        write(outcome(claim(limit=1)[0], "snooze"))
        Job.objects.filter(pk=pk).stage()

    ended = run(claim(limit=1)[0])

    # The first delay of the default backoff, and not the eighth.
    assert ended.verb == "retry"
    assert 1.5 <= ended.delay <= 2.5


def test_a_job_that_was_snoozed_a_thousand_times_is_claimed_with_its_last_attempts_only() -> None:
    start_worker()
    pk = int(tasks.noop.enqueue().id)
    Attempt.objects.bulk_create(
        Attempt(job_id=pk, number=number, worker_id="w1", ended_at=row(pk).enqueued_at, outcome=AttemptOutcome.SNOOZED)
        for number in range(1, 1001)
    )
    Job.objects.filter(pk=pk).update(attempt=1000, max_attempts=1003)

    job = claim(limit=1)[0]

    assert job.attempt == 1001
    assert len(job.history) == 99


def test_an_attempt_begins_by_the_clock_that_says_when_it_ended() -> None:
    job = claimed_job(tasks.noop)
    write(outcome(job, "fail"))

    attempt = history(job)[0]

    assert attempt.started_at == job.last_attempted_at
    assert attempt.started_at <= attempt.ended_at
    assert row(job.id).state == JobState.FAILED
