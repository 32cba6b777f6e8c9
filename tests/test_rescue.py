"""Taking jobs from dead workers."""

from __future__ import annotations

from typing import Any

import pytest

from django_jobs.models import Attempt, Job, Worker
from django_jobs.models.rescue import rescue_lost
from django_jobs.signals import job_rescued, worker_lost
from django_jobs.states import JobState, WorkerState

from .rivals import TIMEOUT, Rival, let_pass
from .rows import LEASE, claim, claimed, end_lease, row, start_worker, values

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def worker() -> str:
    return start_worker()


def test_jobs_of_a_worker_with_a_live_lease_are_left_alone() -> None:
    job = claimed()
    before = values(job.id)

    rescued = rescue_lost()

    assert rescued == 0
    assert values(job.id) == before


def test_a_job_of_a_silent_worker_is_ready_again_with_its_attempt_counted() -> None:
    job = claimed(max_attempts=2)
    end_lease()

    rescued = rescue_lost()

    again = row(job.id)
    assert rescued == 1
    assert (again.state, again.worker_id, again.attempt, again.max_attempts) == (JobState.READY, "", 1, 2)
    assert again.finished_at is None


def test_the_history_says_that_the_worker_was_lost_and_why() -> None:
    job = claimed()
    end_lease()

    rescue_lost(reason="The host was switched off.")

    attempt = Attempt.objects.get()
    assert (attempt.job_id, attempt.number, attempt.worker_id, attempt.outcome) == (job.id, 1, "w1", "crashed")
    assert attempt.exception_class == "django_jobs.exceptions.WorkerLost"
    assert attempt.message == "Worker w1 was lost while it held this job. The host was switched off."
    assert attempt.started_at == row(job.id).last_attempted_at


def test_a_job_without_attempts_left_fails() -> None:
    job = claimed(max_attempts=1)
    end_lease()

    rescue_lost()

    assert (row(job.id).state, row(job.id).worker_id) == (JobState.FAILED, "")
    assert row(job.id).finished_at is not None


def test_a_job_that_keeps_killing_its_worker_ends_as_failed() -> None:
    job = claimed(max_attempts=3, queue_name="deadly")
    for number in range(3):
        rescue_lost([f"w{number or 1}"])
        start_worker(f"w{number + 1}")
        claim(f"w{number + 1}", queues=["deadly"])

    assert row(job.id).state == JobState.FAILED
    assert list(Attempt.objects.values_list("number", "outcome")) == [(1, "crashed"), (2, "crashed"), (3, "crashed")]


def test_a_job_that_keeps_killing_a_worker_with_a_fixed_id_ends_as_failed() -> None:
    """A container starts again under the name and process id that it had."""
    job = claimed(max_attempts=2, queue_name="deadly")
    for _ in range(2):
        start_worker("w1")
        claim("w1", queues=["deadly"])

    assert row(job.id).state == JobState.FAILED
    assert list(Attempt.objects.values_list("number", "outcome")) == [(1, "crashed"), (2, "crashed")]


def test_a_job_that_was_asked_to_stop_is_cancelled() -> None:
    job = claimed()
    Job.objects.filter(pk=job.id).cancel()
    end_lease()

    rescue_lost()

    assert (row(job.id).state, row(job.id).worker_id) == (JobState.CANCELLED, "")
    assert row(job.id).finished_at is not None


def test_a_worker_without_a_lease_is_marked_lost() -> None:
    start_worker("w2")
    end_lease("w1")

    rescue_lost()

    assert dict(Worker.objects.values_list("worker_id", "state")) == {
        "w1": WorkerState.LOST,
        "w2": WorkerState.STARTING,
    }


def test_a_worker_known_to_be_dead_is_rescued_before_its_lease_ends() -> None:
    job = claimed()

    rescued = rescue_lost(["w1"], reason="It was killed by signal 9.")

    assert rescued == 1
    assert row(job.id).state == JobState.READY
    assert Worker.objects.get().state == WorkerState.LOST


@pytest.mark.parametrize("state", [WorkerState.STOPPED, WorkerState.LOST])
def test_jobs_left_with_a_worker_that_has_ended_are_rescued(state: WorkerState) -> None:
    job = claimed()
    Worker.objects.update(state=state)

    assert rescue_lost() == 1
    assert row(job.id).state == JobState.READY


def test_jobs_of_a_worker_whose_row_is_gone_are_rescued() -> None:
    job = claimed()
    Worker.objects.all().delete()

    assert rescue_lost() == 1
    assert row(job.id).state == JobState.READY


def test_a_second_rescue_finds_nothing() -> None:
    claimed()
    end_lease()

    assert [rescue_lost(), rescue_lost()] == [1, 0]
    assert Attempt.objects.count() == 1


def test_receivers_are_told_of_the_lost_worker_and_where_each_job_went() -> None:
    ready, failed, cancelled = claimed(), claimed(max_attempts=1), claimed()
    Job.objects.filter(pk=cancelled.id).cancel()
    heard: list[Any] = []

    def hear_worker(worker_id: str, **kwargs: Any) -> None:
        heard.append(worker_id)

    def hear_job(job_id: int, state: str, worker_id: str, attempt: int, **kwargs: Any) -> None:
        heard.append((job_id, state, worker_id, attempt))

    worker_lost.connect(hear_worker)
    job_rescued.connect(hear_job)
    try:
        rescue_lost(["w1"])
    finally:
        worker_lost.disconnect(hear_worker)
        job_rescued.disconnect(hear_job)

    assert heard == [
        "w1",
        (ready.id, "ready", "w1", 1),
        (failed.id, "failed", "w1", 1),
        (cancelled.id, "cancelled", "w1", 1),
    ]


@pytest.mark.django_db(transaction=True)
def test_two_rescues_at_once_take_each_job_once() -> None:
    jobs = [claimed(max_attempts=5) for _ in range(3)]
    end_lease()
    with Rival() as rival, Rival() as second:
        rival.begin()
        first_count = rival.run(rescue_lost)
        rescuing = second.start(rescue_lost)
        let_pass(rescuing)
        rival.commit()
        second_count = rescuing.result(TIMEOUT)

    assert first_count + second_count == 3
    assert Attempt.objects.count() == 3
    assert {row(job.id).attempt for job in jobs} == {1}


@pytest.mark.django_db(transaction=True)
def test_a_worker_whose_lease_is_just_being_renewed_is_not_lost() -> None:
    job = claimed()
    end_lease()
    with Rival() as rival, Rival() as second:
        rival.begin()
        rival.run(_renew)
        rescuing = second.start(rescue_lost)
        let_pass(rescuing)
        rival.commit()
        rescued = rescuing.result(TIMEOUT)

    assert rescued == 0
    assert row(job.id).state == JobState.RUNNING
    assert Worker.objects.get().state == WorkerState.STARTING


def _renew() -> None:
    Worker.objects.extend(["w1"], LEASE)
