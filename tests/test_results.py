"""Results: what Django's tasks framework is told of a job."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_jobs.compat import (
    TaskResultDoesNotExist,
    TaskResultMismatch,
    TaskResultStatus,
)
from django_jobs.exceptions import JobCancelled, WorkerLost
from django_jobs.models import Job
from django_jobs.models.rescue import rescue_lost
from django_jobs.outcomes import Failure
from django_jobs.states import JobState

from . import tasks
from .compat import default_task_backend
from .rows import HOUR, claim, claimed, job_in, outcome, row, start_worker, write

OURS = "django_jobs.backend.JobsBackend"
FAILURE = Failure("builtins.ValueError", "bad", "Traceback: bad\n", "f")


def fail_once_and_stage(job: Any) -> None:
    write(outcome(job, "retry", failure=FAILURE))
    Job.objects.filter(pk=job.id).stage()


STATUSES = {
    JobState.WAITING: TaskResultStatus.READY,
    JobState.BLOCKED: TaskResultStatus.READY,
    JobState.SCHEDULED: TaskResultStatus.READY,
    JobState.READY: TaskResultStatus.READY,
    JobState.RUNNING: TaskResultStatus.RUNNING,
    JobState.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
    JobState.FAILED: TaskResultStatus.FAILED,
    JobState.CANCELLED: TaskResultStatus.FAILED,
}


@pytest.mark.django_db
@pytest.mark.parametrize("state", JobState)
def test_each_state_has_a_status_of_django(state: JobState) -> None:
    job = job_in(state)

    result = tasks.noop.get_result(str(job.pk))

    assert result.status == STATUSES[state]
    assert result.is_finished == (job.finished_at is not None)


@pytest.mark.django_db
@pytest.mark.parametrize("value", [None, 0, False, "", [], {"a": [1.5, None]}, "ü"])
def test_a_return_value_is_what_the_task_returned(value: Any) -> None:
    start_worker()
    job = claimed(tasks.add)
    write(outcome(job, "succeed", result=value))

    result = tasks.add.get_result(str(job.id))

    assert result.return_value == value
    assert result.worker_ids == ["w1"]
    assert result.started_at is not None
    assert result.last_attempted_at >= result.started_at
    assert result.finished_at >= result.last_attempted_at


@pytest.mark.django_db
def test_there_is_one_error_per_failed_attempt_and_one_worker_per_attempt() -> None:
    start_worker("w1")
    start_worker("w2")
    result = tasks.noop.enqueue()
    fail_once_and_stage(claim("w1")[0])
    write(outcome(claim("w2")[0], "release"), worker_id="w2")
    fail_once_and_stage(claim("w1")[0])
    write(outcome(claim("w2")[0], "succeed", result=1), worker_id="w2")

    result.refresh()

    assert [error.exception_class for error in result.errors] == [ValueError, ValueError]
    assert [error.traceback for error in result.errors] == ["Traceback: bad\n"] * 2
    assert result.worker_ids == ["w1", "w2", "w1", "w2"]
    assert (result.attempts, result.return_value) == (4, 1)


@pytest.mark.django_db
def test_a_running_job_counts_its_running_attempt() -> None:
    start_worker()
    result = tasks.noop.enqueue()
    fail_once_and_stage(claim()[0])
    claim()

    result.refresh()

    assert (result.status, result.attempts, len(result.errors)) == (TaskResultStatus.RUNNING, 2, 1)
    with pytest.raises(ValueError, match="Task has not finished yet"):
        _ = result.return_value


@pytest.mark.django_db
def test_the_first_start_stays_and_the_last_attempt_moves() -> None:
    start_worker()
    result = tasks.noop.enqueue()
    fail_once_and_stage(claim()[0])
    result.refresh()
    first = result.started_at
    Job.objects.filter(pk=result.id).update(last_attempted_at=first - HOUR)
    claim()

    result.refresh()

    assert result.started_at == first
    assert result.last_attempted_at >= first


@pytest.mark.django_db
def test_a_failed_job_has_no_return_value() -> None:
    start_worker()
    job = claimed()
    write(outcome(job, "fail", failure=FAILURE))

    result = tasks.noop.get_result(str(job.id))

    assert result.errors[0].exception_class is ValueError
    assert result.attempts == 1
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value


@pytest.mark.django_db
def test_a_job_whose_worker_died_has_an_error_that_says_so() -> None:
    start_worker()
    job = claimed(max_attempts=1)
    rescue_lost(["w1"])

    result = tasks.noop.get_result(str(job.id))

    assert result.status == TaskResultStatus.FAILED
    assert [error.exception_class for error in result.errors] == [WorkerLost]
    assert result.worker_ids == ["w1"]


@pytest.mark.django_db
@pytest.mark.parametrize("state", [JobState.READY, JobState.RUNNING])
def test_a_cancelled_job_failed_with_the_error_that_it_was_cancelled(state: JobState) -> None:
    result = tasks.noop.get_result(str(job_in(state).pk))
    cancelled = result.cancel()
    Job.objects.cancel_held("w1", [int(result.id)])

    result.refresh()

    assert cancelled
    assert result.status == TaskResultStatus.FAILED
    assert [error.exception_class for error in result.errors] == [JobCancelled]


@pytest.mark.django_db
def test_cancelling_a_finished_job_says_no() -> None:
    result = tasks.noop.get_result(str(job_in(JobState.SUCCEEDED).pk))

    assert result.cancel() is False
    assert row(result.id).state == JobState.SUCCEEDED


@pytest.mark.django_db
def test_cancelling_a_running_job_twice_says_yes_twice() -> None:
    result = tasks.noop.get_result(str(job_in(JobState.RUNNING).pk))

    assert (result.cancel(), result.cancel()) == (True, True)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "garbage",
    ["", " ", "abc", "-1", "1.0", "1_0", " 1", "１", "0", "123456", "9" * 30, "9" * 5000, "\x00", "None", "1;--"],
)
def test_garbage_is_the_id_of_no_result(garbage: str) -> None:
    for pk in (1, 10):
        Job.objects.create(pk=pk, task_path="tests.tasks.noop")

    with pytest.raises(TaskResultDoesNotExist):
        default_task_backend.get_result(garbage)


@pytest.mark.django_db
@pytest.mark.parametrize("garbage", [None, 1, True, 1.0, [1], b"1"])
def test_what_is_no_text_is_the_id_of_no_result(garbage: Any) -> None:
    Job.objects.create(pk=1, task_path="tests.tasks.noop")

    with pytest.raises(TaskResultDoesNotExist):
        default_task_backend.get_result(garbage)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["os.system", "tests.tasks.gone", "nonsense"])
def test_a_job_of_a_task_that_is_not_declared_has_no_result(path: str) -> None:
    job = Job.objects.create(task_path=path)

    with pytest.raises(TaskResultDoesNotExist):
        default_task_backend.get_result(str(job.pk))


@pytest.mark.django_db
def test_the_result_of_another_task_is_refused() -> None:
    result = tasks.noop.enqueue()

    with pytest.raises(TaskResultMismatch):
        tasks.add.get_result(result.id)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["orders.mail_receipt", "shop.tasks.receipt", "tests.tasks.send_receipt"])
def test_a_job_from_before_a_rename_belongs_to_the_renamed_task(path: str) -> None:
    job = Job.objects.create(task_path=path, args=[1])

    result = tasks.send_receipt.get_result(str(job.pk))

    assert result.task == tasks.send_receipt


@pytest.mark.django_db
def test_a_result_can_be_read_when_its_backend_or_queue_has_gone_from_the_settings(settings: Any) -> None:
    settings.TASKS = {"default": {"BACKEND": OURS, "QUEUES": ["default"]}}
    old_alias = Job.objects.create(task_path="tests.tasks.noop", backend="old")
    old_queue = Job.objects.create(task_path="tests.tasks.noop", queue_name="old")

    results = [tasks.noop.get_result(str(job.pk)) for job in (old_alias, old_queue)]

    assert [result.status for result in results] == [TaskResultStatus.READY] * 2
    assert results[0].backend == "old"


@pytest.mark.django_db
def test_reading_a_result_costs_two_queries() -> None:
    result = tasks.noop.enqueue()

    with CaptureQueriesContext(connection) as captured:
        result.refresh()

    assert len(captured) == 2


# Waiting


@pytest.mark.django_db
def test_waiting_for_a_finished_job_returns_at_once() -> None:
    start_worker()
    result = tasks.add.enqueue(1)
    write(outcome(claim()[0], "succeed", result=42))

    assert result.wait() is result
    assert result.return_value == 42


@pytest.mark.django_db
def test_waiting_ends_at_the_timeout() -> None:
    result = tasks.add.enqueue(1)

    with pytest.raises(TimeoutError, match=rf"Job {result.id} is READY after 0 s."):
        result.wait(timeout=0)
