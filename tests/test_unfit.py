"""Jobs that the worker's code cannot run wait for code that can: no attempt counts, and the history says why."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from django_jobs import task
from django_jobs.exceptions import Cancel, Fail, JobCancelled, Retry, UnknownTask
from django_jobs.models import Job
from django_jobs.outcomes import ClaimedJob, Outcome, PastAttempt
from django_jobs.states import AttemptOutcome, JobState
from django_jobs.task import withdraw
from django_jobs.worker.announcer import announce
from django_jobs.worker.unfit import longer_each_time

from . import tasks
from .attempts import claimed_job, history, run, run_async, tried_again
from .rows import row, write
from .visitor import JOBS, superuser, text_of
from .worker_tasks import do, do_async, do_with_context, doing

pytestmark = pytest.mark.django_db

GONE = "tests.tasks.gone_with_the_last_deploy"


def with_a_session(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the function an argument that no job has, as decorators of some projects do."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function("session", *args)

    return call


@task
@with_a_session
def use_a_session(session: str, number: int) -> int:
    """Raise a TypeError of its own for a text."""
    return number + 1


def job_of(path: str, **fields: Any) -> ClaimedJob:
    """Return a claimed job whose row names another task."""
    job = claimed_job(tasks.noop)
    Job.objects.filter(pk=job.id).update(task_path=path, **fields)
    return job._replace(task_path=path, **fields)


def written(job: ClaimedJob) -> Outcome:
    outcome = run(job)
    write(outcome)
    return outcome


# Unknown tasks


def test_a_job_of_an_unknown_task_waits_and_its_attempt_does_not_count() -> None:
    job = job_of(GONE)

    outcome = written(job)

    waiting = row(job.id)
    assert (outcome.verb, waiting.state, waiting.worker_id) == ("postpone", JobState.SCHEDULED, "")
    assert waiting.max_attempts - waiting.attempt == job.max_attempts
    assert 1.5 <= outcome.delay <= 2.5


def test_a_job_of_an_unknown_task_is_there_after_many_times_its_attempts_and_says_why_each_time() -> None:
    job = job_of(GONE, max_attempts=1)
    write(run(job))

    for _ in range(10):
        tried_again(job.id)

    attempts = history(job)
    assert row(job.id).state == JobState.SCHEDULED
    assert [attempt.outcome for attempt in attempts] == [AttemptOutcome.POSTPONED] * 11
    assert {attempt.exception_class for attempt in attempts} == {"django_jobs.exceptions.UnknownTask"}
    assert all("is not a declared task" in attempt.message for attempt in attempts)


def test_the_delay_grows_with_each_postponement_up_to_about_an_hour() -> None:
    job = claimed_job(tasks.noop)
    delays = []

    for count in range(30):
        past = PastAttempt("w1", AttemptOutcome.POSTPONED, "", "")
        # What else happened does not count.
        other = PastAttempt("w1", AttemptOutcome.SNOOZED, "", "")
        delays.append(longer_each_time(job._replace(history=(past, other) * count)))

    for count, delay in enumerate(delays):
        usual = min(2.0 * 2**count, 3600.0)
        assert 0.75 * usual <= delay <= 1.25 * usual


def test_each_time_a_job_waits_twice_as_long() -> None:
    job = job_of(GONE)
    write(run(job))

    tried_again(job.id)
    Job.objects.filter(pk=job.id).stage()
    again = tried_again(job.id)

    assert again.attempt == 3
    third = run(job._replace(history=tuple(PastAttempt("", each.outcome, "", "") for each in history(job))))
    assert 12 <= third.delay <= 20


def test_code_that_knows_the_task_runs_the_job() -> None:
    job = job_of(GONE)
    write(run(job))
    # The version of the code that has the task: under this name.
    renamed = dataclasses.replace(tasks.add, registered_name=GONE)
    Job.objects.filter(pk=job.id).update(args=[1, 2])

    try:
        ended = tried_again(job.id)
    finally:
        withdraw(renamed)

    assert (ended.state, ended.result.value) == (JobState.SUCCEEDED, 3)


def test_a_task_that_asks_for_an_unknown_one_fails_as_any_other() -> None:
    def body() -> None:
        raise UnknownTask("of another job")

    assert run(claimed_job(do, doing(body))).verb == "retry"


@pytest.mark.parametrize(
    ("error", "verb"), [(Cancel(), "cancel"), (Fail(), "fail"), (JobCancelled(), "cancel"), (Retry(5), "postpone")]
)
def test_what_a_middleware_answers_for_an_unknown_task_stands_unless_it_would_count(
    error: BaseException, verb: str
) -> None:
    def middleware(call: Any) -> Any:
        def refuse(job: ClaimedJob) -> Any:
            raise error

        return refuse

    assert run(job_of(GONE), [middleware]).verb == verb


# Arguments


def test_arguments_that_the_function_does_not_take_wait_for_code_that_does() -> None:
    job = claimed_job(tasks.send_mail, "a@example.com", "too many")

    outcome = written(job)

    assert outcome.verb == "postpone"
    assert row(job.id).max_attempts - row(job.id).attempt == job.max_attempts
    assert "takes 1 positional argument but 2 were given" in history(job)[0].message


@pytest.mark.parametrize(
    ("args", "kwargs"), [([], {}), ([1, 2, 3], {}), ([1, 2], {"c": 3}), ([1], {"a": 1}), ([], {"b": 1})]
)
def test_arguments_that_cannot_be_handed_over_wait(args: list[Any], kwargs: dict[str, Any]) -> None:
    job = claimed_job(tasks.add, 1, 2)._replace(args=args, kwargs=kwargs)

    assert run(job).verb == "postpone"


def test_a_coroutine_that_does_not_take_its_arguments_waits_too() -> None:
    job = claimed_job(do_async)

    assert run_async(job).verb == "postpone"


def test_the_context_that_a_task_takes_is_no_argument_of_the_job() -> None:
    job = claimed_job(tasks.noop)._replace(task_path="tests.worker_tasks.do_with_context")

    assert run(job).verb == "postpone"
    assert run(job._replace(args=[doing(lambda context: None)])).verb == "succeed"


def test_a_type_error_inside_the_function_fails_the_attempt() -> None:
    def body() -> None:
        len(5)  # type: ignore[arg-type]

    outcome = run(claimed_job(do, doing(body)))

    assert (outcome.verb, outcome.failure.exception_class) == ("retry", "builtins.TypeError")


@pytest.mark.parametrize("task", [do, do_with_context])
def test_a_type_error_of_a_middleware_fails_the_attempt_of_a_job_that_fits(task: Any) -> None:
    def middleware(call: Any) -> Any:
        def fail(job: ClaimedJob) -> Any:
            raise TypeError("of the middleware")

        return fail

    assert run(claimed_job(task, "body"), [middleware]).verb == "retry"


def test_a_call_inside_the_function_that_does_not_fit_fails_the_attempt() -> None:
    def body() -> None:
        tasks.send_mail.call()

    assert run(claimed_job(do, doing(body))).verb == "retry"


def test_a_decorator_may_give_the_function_what_the_job_has_not() -> None:
    assert run(claimed_job(use_a_session, 1)).result == 2
    assert run(claimed_job(use_a_session, "1")).verb == "retry"


# What people see


def test_each_postponement_is_logged_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    job = job_of(GONE)

    announce(run(job))

    [record] = [record for record in caplog.records if record.name == "django_jobs"]
    assert record.levelno == logging.WARNING
    assert f"Job {job.id} of {GONE}, attempt 1 of 3: this code cannot run it, it waits for" in record.message
    assert "is not a declared task" in record.message


def test_the_page_of_a_postponed_job_shows_the_problem() -> None:
    job = job_of(GONE)
    write(run(job))

    text = text_of(superuser().get(f"{JOBS}{job.id}/change/"))

    assert "scheduled in" in text
    assert "Attempt 1 postponed" in text
    assert "is not a declared task" in text
    assert "waits for a worker whose code can" in text
