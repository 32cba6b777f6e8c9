"""From what a job did to its outcome: which verb, and after which delay."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_jobs.exceptions import Cancel, Fail, JobCancelled, JobInterrupted, Retry, Snooze
from django_jobs.models import Job
from django_jobs.outcomes import Outcome
from django_jobs.retries import LONGEST_DELAY
from django_jobs.states import AttemptOutcome, JobState

from .attempts import claimed_job, ended, history, run, run_async, tried_again
from .rows import claim, database_time, is_due_in, write
from .worker_tasks import (
    choose_backoff,
    do,
    do_and_ignore_missing_files,
    do_and_retry_os_errors,
    do_async,
    do_once,
    do_with_chosen_backoff,
    doing,
    raising,
)

pytestmark = pytest.mark.django_db

# The default backoff of a first attempt: 2 s, and a quarter of jitter.
FIRST_DELAY = pytest.approx(2.0, abs=0.5)
# What ends a process, a coroutine or a generator when it is raised elsewhere.
ENDS_MORE = [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException]


def outcome_of(task: Any, error: BaseException | type[BaseException]) -> Outcome:
    return run(claimed_job(task, raising(error)))


# Errors


def test_a_job_that_returns_succeeds() -> None:
    job = ended(do, doing(lambda: None))

    assert job.state == JobState.SUCCEEDED


def test_a_job_that_raises_is_tried_again_after_the_backoff() -> None:
    since = database_time()
    job = ended(do, raising(ValueError("no")))

    assert job.state == JobState.SCHEDULED
    assert is_due_in(job, 2, since, spread=0.5)
    assert history(job)[0].message == "no"


def test_a_job_that_always_fails_is_run_as_often_as_its_max_attempts_says() -> None:
    calls: list[int] = []

    def body() -> None:
        calls.append(1)
        raise ValueError(f"no {len(calls)}")

    job = ended(do, doing(body))
    states = [job.state, tried_again(job.pk).state, tried_again(job.pk).state]

    assert states == [JobState.SCHEDULED, JobState.SCHEDULED, JobState.FAILED]
    assert [(past.number, past.outcome, past.message) for past in history(job)] == [
        (1, AttemptOutcome.FAILED, "no 1"),
        (2, AttemptOutcome.FAILED, "no 2"),
        (3, AttemptOutcome.FAILED, "no 3"),
    ]


def test_each_delay_lies_within_the_stated_backoff() -> None:
    job = claimed_job(do.using(max_attempts=4), raising(ValueError()))

    delays = []
    for _ in range(3):
        outcome = run(job)
        delays.append(outcome.delay)
        write(outcome)
        Job.objects.filter(pk=job.id).stage()
        job = claim(limit=1)[0]

    assert delays == [pytest.approx(2, abs=0.5), pytest.approx(4, abs=1), pytest.approx(8, abs=2)]


def test_a_job_that_succeeds_after_a_failure_keeps_its_history() -> None:
    errors = iter([ValueError("first"), None])

    def body() -> str:
        if error := next(errors):
            raise error
        return "done"

    job = tried_again(ended(do, doing(body)).pk)

    assert (job.state, job.result.value) == (JobState.SUCCEEDED, "done")
    assert [past.message for past in history(job)] == ["first"]


@pytest.mark.parametrize("error", ENDS_MORE)
def test_an_exception_that_ends_more_than_a_job_fails_only_the_job(error: type[BaseException]) -> None:
    job = ended(do_once, raising(error))

    assert job.state == JobState.FAILED
    assert history(job)[0].exception_class == f"builtins.{error.__name__}"


@pytest.mark.parametrize("error", ENDS_MORE)
def test_an_exception_that_ends_more_than_a_coroutine_fails_only_the_job(error: type[BaseException]) -> None:
    async def body() -> None:
        raise error("stop")

    outcome = run_async(claimed_job(do_async, doing(body)))

    assert (outcome.verb, outcome.failure.message) == ("retry", "stop")


def test_the_exception_goes_with_the_outcome() -> None:
    error = ValueError("this one")

    assert outcome_of(do, error).exception is error


# Which errors are retried


def test_an_error_that_retry_on_names_is_retried() -> None:
    assert outcome_of(do_and_retry_os_errors, ConnectionError()).verb == "retry"


def test_an_error_that_retry_on_does_not_name_fails_the_job_at_once() -> None:
    assert outcome_of(do_and_retry_os_errors, ValueError()).verb == "fail"


def test_ignore_on_wins_over_retry_on() -> None:
    job = claimed_job(do_and_ignore_missing_files, raising(FileNotFoundError))

    assert run(job).verb == "fail"


def test_an_error_that_ignore_on_does_not_name_is_retried() -> None:
    assert outcome_of(do_and_ignore_missing_files, PermissionError()).verb == "retry"


# Answers


@pytest.mark.parametrize("delay", [90, 90.0, timedelta(minutes=1.5)])
def test_a_job_that_answers_retry_is_tried_again_after_its_own_delay(delay: Any) -> None:
    outcome = outcome_of(do, Retry(delay, reason="busy"))

    assert (outcome.verb, outcome.delay, outcome.failure.message) == ("retry", 90.0, "busy")


def test_retry_without_a_delay_waits_for_the_backoff() -> None:
    outcome = outcome_of(do, Retry())

    assert (outcome.verb, outcome.delay) == ("retry", FIRST_DELAY)


def test_retry_is_an_answer_also_where_retry_on_does_not_name_it() -> None:
    assert outcome_of(do_and_retry_os_errors, Retry(5)).verb == "retry"


def test_retry_without_an_attempt_left_fails_the_job() -> None:
    job = ended(do_once, raising(Retry(5, reason="still busy")))

    assert job.state == JobState.FAILED
    assert history(job)[0].message == "still busy"


@pytest.mark.parametrize("delay", [-1, float("nan"), "soon", timedelta(days=4000)])
def test_an_answer_with_a_delay_that_cannot_work_waits_for_the_default(
    delay: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = [run(claimed_job(do, raising(answer))) for answer in (Retry(delay), Snooze(delay))]

    assert [(outcome.verb, outcome.delay) for outcome in outcomes] == [("retry", FIRST_DELAY), ("snooze", FIRST_DELAY)]
    assert "The default backoff is used." in caplog.text


def test_snooze_runs_the_job_later_and_does_not_count_the_attempt() -> None:
    since = database_time()
    job = ended(do_once, raising(Snooze(timedelta(minutes=1), reason="not yet")))

    assert (job.state, job.attempt, job.max_attempts) == (JobState.SCHEDULED, 1, 2)
    assert is_due_in(job, 60, since)
    assert [(past.outcome, past.message) for past in history(job)] == [(AttemptOutcome.SNOOZED, "not yet")]


def test_cancel_ends_the_job_as_cancelled() -> None:
    job = ended(do, raising(Cancel("not wanted any more")))

    assert job.state == JobState.CANCELLED
    assert [(past.outcome, past.message) for past in history(job)] == [
        (AttemptOutcome.CANCELLED, "not wanted any more")
    ]


def test_fail_ends_the_job_however_many_attempts_are_left() -> None:
    job = ended(do, raising(Fail("no such order")))

    assert (job.state, job.attempt, job.max_attempts) == (JobState.FAILED, 1, 3)
    assert history(job)[0].message == "no such order"


@pytest.mark.parametrize(("error", "verb"), [(JobCancelled, "cancel"), (JobInterrupted, "release")])
def test_an_interrupt_cancels_the_job_or_gives_it_back(error: type[BaseException], verb: str) -> None:
    assert outcome_of(do_once, error).verb == verb


# Backoffs


def test_a_backoff_is_asked_with_the_error_and_the_number_of_the_attempt() -> None:
    asked: list[tuple[str, int]] = []
    choose_backoff(lambda error, result: asked.append((str(error), result.attempts)) or 7)

    outcome = outcome_of(do_with_chosen_backoff, ValueError("no"))

    assert asked == [("no", 1)]
    assert outcome.delay == 7.0


def test_a_backoff_may_answer_with_a_timedelta() -> None:
    choose_backoff(lambda error, result: timedelta(minutes=2))

    assert outcome_of(do_with_chosen_backoff, ValueError()).delay == 120.0


@pytest.mark.parametrize("error", [ValueError(), Retry()])
def test_a_backoff_that_answers_none_fails_the_job(error: Exception) -> None:
    choose_backoff(lambda error, result: None)

    assert outcome_of(do_with_chosen_backoff, error).verb == "fail"


@pytest.mark.parametrize(
    "answer", [-1, float("nan"), float("inf"), "soon", True, LONGEST_DELAY + 1, timedelta(seconds=-1)]
)
def test_the_default_is_used_where_a_backoff_answers_what_cannot_work(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    choose_backoff(lambda error, result: answer)

    outcome = outcome_of(do_with_chosen_backoff, ValueError())

    assert (outcome.verb, outcome.delay) == ("retry", FIRST_DELAY)
    assert "The default backoff is used." in caplog.text


@pytest.mark.parametrize("broken", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_the_default_is_used_where_a_backoff_raises(
    broken: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def backoff(error: BaseException, result: Any) -> None:
        raise broken

    choose_backoff(backoff)

    outcome = outcome_of(do_with_chosen_backoff, ValueError())

    assert (outcome.verb, outcome.delay) == ("retry", FIRST_DELAY)
    assert "raised; the default is used" in caplog.text
