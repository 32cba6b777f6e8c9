"""Writing outcomes: what each verb leaves behind, and the fence that late ones meet."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_jobs.models import Attempt, Job, Result
from django_jobs.models.completion import give_back_unknown, write_progress
from django_jobs.outcomes import ClaimedJob, Failure
from django_jobs.states import AttemptOutcome, JobState

from . import tasks
from .rows import HOUR, claim, claimed, database_time, outcome, row, start_worker, write

FAILURE = Failure("builtins.ValueError", "bad", "Traceback: bad\n", "f" * 32)
VERBS = ["succeed", "fail", "retry", "snooze", "cancel", "release"]
ENDINGS = ("succeed", "fail", "cancel")

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def worker() -> str:
    return start_worker()


def attempts_of(job: ClaimedJob) -> list[tuple[int, str, str]]:
    return list(Attempt.objects.filter(job_id=job.id).values_list("number", "worker_id", "outcome"))


# What each verb does


def test_a_success_ends_the_job_and_writes_no_history() -> None:
    job = claimed()

    written = write(outcome(job, "succeed", result={"a": 1}))

    ended = row(job.id)
    assert [done.job for done in written.done] == [job]
    assert (ended.state, ended.worker_id, ended.attempt) == (JobState.SUCCEEDED, "w1", 1)
    assert ended.finished_at >= ended.last_attempted_at
    assert ended.result.value == {"a": 1}
    assert attempts_of(job) == []


def test_a_result_of_none_writes_no_row() -> None:
    job = claimed()

    write(outcome(job, "succeed"))

    assert Result.objects.count() == 0


def test_a_failure_ends_the_job_and_says_why() -> None:
    job = claimed()

    write(outcome(job, "fail", failure=FAILURE))

    ended, attempt = row(job.id), Attempt.objects.get()
    assert (ended.state, ended.worker_id) == (JobState.FAILED, "w1")
    assert ended.finished_at is not None
    assert (attempt.number, attempt.worker_id, attempt.outcome) == (1, "w1", AttemptOutcome.FAILED)
    assert (attempt.exception_class, attempt.message, attempt.traceback, attempt.fingerprint) == (
        "builtins.ValueError",
        "bad",
        "Traceback: bad\n",
        "f" * 32,
    )
    assert attempt.started_at == job.last_attempted_at
    assert attempt.ended_at >= attempt.started_at


@pytest.mark.parametrize("verb", ["retry", "snooze", "postpone"])
@pytest.mark.parametrize("delay", [0.0, 1.5, 3600.25])
def test_a_job_that_runs_again_waits_for_its_delay_by_the_databases_clock(verb: str, delay: float) -> None:
    job = claimed()

    before = database_time()
    write(outcome(job, verb, delay=delay, failure=FAILURE))
    after = database_time()

    again, attempt = row(job.id), Attempt.objects.get()
    assert (again.state, again.worker_id, again.finished_at, again.attempt) == (JobState.SCHEDULED, "", None, 1)
    # The job and its history are two statements, each with its own now.
    assert before <= attempt.ended_at <= after
    assert before <= again.run_after - timedelta(seconds=delay) <= after


def test_a_retry_counts_and_a_snooze_or_a_postponement_does_not() -> None:
    retried, snoozed, postponed = claimed(max_attempts=3), claimed(max_attempts=3), claimed(max_attempts=3)

    write(outcome(retried, "retry"), outcome(snoozed, "snooze"), outcome(postponed, "postpone"))

    assert [row(job.id).max_attempts - row(job.id).attempt for job in (retried, snoozed, postponed)] == [2, 3, 3]
    assert attempts_of(retried) == [(1, "w1", "failed")]
    assert attempts_of(snoozed) == [(1, "w1", "snoozed")]
    assert attempts_of(postponed) == [(1, "w1", "postponed")]


def test_each_of_many_retries_has_its_own_delay() -> None:
    jobs = [claimed() for _ in range(5)]

    write(*(outcome(job, "retry", delay=number * 1000.0) for number, job in enumerate(jobs)))

    moments = [row(job.id).run_after for job in jobs]
    steps = {round((later - earlier).total_seconds(), 3) for earlier, later in itertools.pairwise(moments)}
    assert steps == {1000.0}


def test_a_released_job_is_ready_at_once_with_its_attempt_not_used_up() -> None:
    job = claimed(max_attempts=1)

    write(outcome(job, "release"))

    released = row(job.id)
    assert (released.state, released.worker_id, released.attempt, released.max_attempts) == (JobState.READY, "", 1, 2)
    assert attempts_of(job) == [(1, "w1", "interrupted")]


def test_a_cancelled_job_ends() -> None:
    job = claimed()

    write(outcome(job, "cancel", failure=FAILURE))

    assert row(job.id).state == JobState.CANCELLED
    assert row(job.id).finished_at is not None
    assert attempts_of(job) == [(1, "w1", "cancelled")]


def test_a_text_that_is_too_long_for_its_column_is_cut() -> None:
    job = claimed()

    write(outcome(job, "fail", failure=Failure("c" * 400, "m", "t", "f" * 100)))

    attempt = Attempt.objects.get()
    assert (len(attempt.exception_class), len(attempt.fingerprint)) == (255, 64)


def test_outcomes_of_every_kind_and_attempt_are_written_together() -> None:
    jobs = [claimed() for _ in range(12)]
    Job.objects.filter(pk__in=[job.id for job in jobs[6:]]).update(attempt=4)
    later = [job._replace(attempt=4) for job in jobs[6:]]

    written = write(*(outcome(job, VERBS[number % 6]) for number, job in enumerate([*jobs[:6], *later])))

    states = [row(job.id).state for job in jobs]
    assert len(written.done) == 12
    assert states == ["succeeded", "failed", "scheduled", "scheduled", "cancelled", "ready"] * 2


def test_the_successes_of_a_turn_are_one_update() -> None:
    jobs = [claimed() for _ in range(20)]

    with CaptureQueriesContext(connection) as captured:
        write(*(outcome(job, "succeed") for job in jobs))

    updates = [query["sql"] for query in captured.captured_queries if query["sql"].startswith("UPDATE")]
    assert len(updates) == 1


def test_a_jobs_meta_is_saved_with_its_outcome() -> None:
    job = claimed(meta={"team": "sales"})

    write(outcome(job, "retry", meta={"page": 3}))

    assert row(job.id).meta == {"page": 3}


def test_a_requeued_job_that_succeeds_again_has_its_new_result() -> None:
    job = claimed(tasks.noop, queue_name="again")
    write(outcome(job, "succeed", result=1))
    Job.objects.filter(pk=job.id).requeue()
    assert Result.objects.count() == 0
    second = claim(queues=["again"])[0]

    write(outcome(second, "succeed", result=2))

    assert row(job.id).result.value == 2


# Progress, and jobs that the worker does not know


def test_progress_is_written_for_running_jobs_of_the_worker_only() -> None:
    ours, ended, others = claimed(), claimed(), claimed()
    write(outcome(ended, "succeed"))
    Job.objects.filter(pk=others.id).update(worker_id="w2")

    write_progress("w1", {job.id: {"done": 1} for job in (ours, ended, others)})

    assert [row(job.id).progress for job in (ours, ended, others)] == [{"done": 1}, None, None]


def test_jobs_that_the_worker_does_not_know_are_given_back() -> None:
    known, unknown = claimed(max_attempts=1), claimed(max_attempts=1)

    given_back = give_back_unknown("w1", [known.id])

    assert given_back == 1
    assert row(known.id).state == JobState.RUNNING
    assert (row(unknown.id).state, row(unknown.id).max_attempts) == (JobState.READY, 2)
    assert attempts_of(unknown) == [(1, "w1", "interrupted")]


def test_nothing_unknown_costs_one_query() -> None:
    known = claimed()

    with CaptureQueriesContext(connection) as captured:
        give_back_unknown("w1", [known.id])

    assert len(captured) == 1


# Cancel and requeue by a person


@pytest.mark.parametrize("state", ["ready", "scheduled"])
def test_an_unstarted_job_is_cancelled_at_once(state: str) -> None:
    result = tasks.noop.using(run_after=HOUR).enqueue() if state == "scheduled" else tasks.noop.enqueue()

    cancelled = Job.objects.filter(pk=result.id).cancel()

    assert cancelled == 1
    assert row(result.id).state == JobState.CANCELLED
    assert row(result.id).finished_at is not None


def test_requeueing_gives_a_job_one_attempt_more_and_a_fresh_start() -> None:
    job = claimed(max_attempts=1, queue_name="again")
    Job.objects.filter(pk=job.id).cancel()
    write(outcome(job, "fail"))
    finished_at = row(job.id).finished_at

    moved = Job.objects.filter(pk=job.id).requeue()

    again = row(job.id)
    assert moved == 1
    assert (again.state, again.attempt, again.max_attempts, again.worker_id) == (JobState.READY, 1, 2, "")
    assert (again.finished_at, again.cancel_requested_at, again.progress) == (None, None, None)
    # It waits from now on.
    assert again.run_after >= finished_at
    assert claim(queues=["again"])[0].attempt == 2


def test_requeueing_passes_over_a_job_whose_unique_key_is_taken() -> None:
    unique = tasks.noop.using(unique_key="once")
    first = claimed(unique)
    write(outcome(first, "fail"))
    second = unique.enqueue()

    moved = Job.objects.all().requeue()

    assert moved == 0
    assert row(first.id).state == JobState.FAILED
    assert row(second.id).state == JobState.READY
