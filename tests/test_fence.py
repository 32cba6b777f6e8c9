"""The fence: what comes too late, or after somebody asked to cancel, does not count."""

from __future__ import annotations

import pytest

from django_jobs.models import Attempt, Job, Result
from django_jobs.models.rescue import rescue_lost
from django_jobs.outcomes import ClaimedJob, Failure
from django_jobs.states import AttemptOutcome, JobState

from .rivals import TIMEOUT, Rival, let_pass, wait_until_blocked
from .rows import claim, claimed, end_lease, outcome, row, start_worker, values, write

FAILURE = Failure("builtins.ValueError", "bad", "Traceback: bad\n", "f" * 32)
VERBS = ["succeed", "fail", "retry", "snooze", "cancel", "release"]
ENDINGS = ("succeed", "fail", "cancel")

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def worker() -> str:
    return start_worker()


def attempts_of(job: ClaimedJob) -> list[tuple[int, str, str]]:
    return list(Attempt.objects.filter(job_id=job.id).values_list("number", "worker_id", "outcome"))


def lose(job: ClaimedJob) -> None:
    """Let the worker lose the job, as if it had been silent for too long."""
    end_lease()
    rescue_lost()
    start_worker()


@pytest.mark.parametrize("verb", VERBS)
def test_an_outcome_after_a_rescue_changes_nothing_and_is_told_so(verb: str) -> None:
    job = claimed()
    lose(job)
    before = (values(job.id), attempts_of(job))

    written = write(outcome(job, verb, result=1, meta={"late": True}, failure=FAILURE))

    assert ([late.job for late in written.late], written.done) == ([job], [])
    assert (values(job.id), attempts_of(job)) == before
    assert Result.objects.count() == 0


@pytest.mark.parametrize("verb", VERBS)
def test_an_outcome_while_another_worker_runs_the_job_changes_nothing(verb: str) -> None:
    job = claimed(queue_name="contested")
    lose(job)
    start_worker("w2")
    claim("w2", queues=["contested"])
    before = values(job.id)

    written = write(outcome(job, verb, result=1, meta={"late": True}, failure=FAILURE))

    assert len(written.late) == 1
    assert values(job.id) == before


@pytest.mark.parametrize("verb", VERBS)
def test_an_outcome_of_an_earlier_attempt_of_the_same_worker_changes_nothing(verb: str) -> None:
    job = claimed(queue_name="contested")
    lose(job)
    claim(queues=["contested"])
    before = values(job.id)

    written = write(outcome(job, verb, result=1, meta={"late": True}, failure=FAILURE))

    assert len(written.late) == 1
    assert values(job.id) == before


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("first", ["fail", "cancel", "retry", "snooze", "release"])
def test_a_second_outcome_of_one_attempt_changes_nothing(first: str, verb: str) -> None:
    job = claimed()
    write(outcome(job, first, delay=60.0))
    before = values(job.id)

    written = write(outcome(job, verb, result=1, failure=FAILURE))

    assert len(written.late) == 1
    assert values(job.id) == before


def test_a_success_that_is_written_twice_counts_as_written() -> None:
    """The exchange writes again what a lost connection may have kept from being committed."""
    job = claimed()
    write(outcome(job, "succeed", result=1))
    finished_at = row(job.id).finished_at

    written = write(outcome(job, "succeed", result=1))

    assert (len(written.done), written.late) == (1, [])
    assert row(job.id).finished_at == finished_at


def test_an_outcome_of_a_deleted_job_is_late() -> None:
    job = claimed()
    Job.objects.filter(pk=job.id).delete()

    written = write(outcome(job, "fail", failure=FAILURE))

    assert len(written.late) == 1
    assert Attempt.objects.count() == 0


def test_late_outcomes_do_not_keep_the_others_from_being_written() -> None:
    lost, kept = claimed(), claimed()
    Job.objects.filter(pk=lost.id).update(worker_id="w2")

    written = write(outcome(lost, "succeed"), outcome(kept, "succeed", result=1))

    assert [done.job for done in written.done] == [kept]
    assert [late.job for late in written.late] == [lost]
    assert row(kept.id).result.value == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("verb", VERBS)
def test_of_a_rescue_and_an_outcome_at_once_one_wins_and_the_other_changes_nothing(verb: str) -> None:
    job = claimed(max_attempts=5)
    end_lease()
    with Rival() as rival:
        rival.begin()
        rescued = rival.run(rescue_lost)
        with Rival() as second:
            waiting = second.start(lambda: write(outcome(job, verb, result=1)))
            wait_until_blocked()
            rival.commit()
            written = waiting.result(TIMEOUT)

    assert rescued == 1
    assert len(written.late) == 1
    assert (row(job.id).state, row(job.id).worker_id) == (JobState.READY, "")
    assert attempts_of(job) == [(1, "w1", "crashed")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("verb", VERBS)
def test_a_rescue_passes_over_a_job_whose_outcome_is_just_being_written(verb: str) -> None:
    job = claimed(max_attempts=5)
    end_lease()
    with Rival() as rival, Rival() as second:
        rival.begin()
        rival.run(lambda: write(outcome(job, verb)))
        rescuing = second.start(rescue_lost)
        let_pass(rescuing)
        rival.commit()
        rescued = rescuing.result(TIMEOUT)

    assert rescued == 0
    assert (row(job.id).worker_id, row(job.id).attempt) == (("w1", 1) if verb in ENDINGS else ("", 1))


# Cancel requests


@pytest.mark.parametrize("verb", VERBS)
def test_a_running_job_that_was_asked_to_stop_ends_as_cancelled_whatever_it_did(verb: str) -> None:
    job = claimed()
    Job.objects.filter(pk=job.id).cancel()

    written = write(outcome(job, verb, result=1, delay=60.0, failure=FAILURE))

    ended, attempt = row(job.id), Attempt.objects.get()
    assert ended.state == JobState.CANCELLED
    assert [done.verb for done in written.done] == ["cancel"]
    assert attempt.outcome == AttemptOutcome.CANCELLED
    assert Result.objects.count() == 0


def test_a_cancelled_job_keeps_the_error_it_ended_with() -> None:
    job = claimed()
    Job.objects.filter(pk=job.id).cancel()

    write(outcome(job, "fail", failure=FAILURE))

    attempt = Attempt.objects.get()
    assert attempt.exception_class == "django_jobs.exceptions.JobCancelled"
    assert attempt.message == "The job was cancelled while it was running. It ended with: bad"
    assert attempt.traceback == "Traceback: bad\n"


def test_a_request_after_the_success_changes_nothing() -> None:
    job = claimed()
    write(outcome(job, "succeed"))

    asked = Job.objects.filter(pk=job.id).cancel()

    assert asked == 0
    assert row(job.id).state == JobState.SUCCEEDED


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("verb", ["retry", "release", "succeed"])
def test_a_request_that_meets_an_outcome_is_never_lost(verb: str) -> None:
    job = claimed()
    with Rival() as rival:
        rival.begin()
        rival.run(lambda: write(outcome(job, verb, delay=60.0)))
        with Rival() as second:
            waiting = second.start(Job.objects.filter(pk=job.id).cancel)
            wait_until_blocked()
            rival.commit()
            moved = waiting.result(TIMEOUT)

    assert (moved, row(job.id).state) == ((0, "succeeded") if verb == "succeed" else (1, "cancelled"))
