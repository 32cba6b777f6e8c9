"""What receivers are told of the jobs of a worker, and that they can do no harm."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.dispatch import Signal
from django.utils import timezone

from django_jobs import signals
from django_jobs.backend import JobsBackend
from django_jobs.compat import PACKAGE, TaskResultStatus, task_finished, task_started
from django_jobs.exceptions import Cancel, JobCancelled, Snooze, UnknownTask
from django_jobs.models import Job
from django_jobs.outcomes import ClaimedJob, Outcome
from django_jobs.states import JobState
from django_jobs.worker.announcer import announce

from . import tasks
from .attempts import claimed_job, run
from .rows import claim, row, start_worker, write
from .worker_tasks import do, do_once, raising, returning

pytestmark = pytest.mark.django_db

JOB_SIGNALS = {
    "job_started": signals.job_started,
    "job_succeeded": signals.job_succeeded,
    "job_failed": signals.job_failed,
    "job_retrying": signals.job_retrying,
    "job_snoozed": signals.job_snoozed,
    "job_cancelled": signals.job_cancelled,
    "task_started": task_started,
    "task_finished": task_finished,
}


class Receiver:
    """Keeps what it is told, and the state of the row at that moment."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any, dict[str, Any]]] = []
        self.states: list[JobState] = []
        self._connected: list[tuple[Signal, Callable[..., None]]] = []

    def listen_to(self, name: str, signal: Signal) -> None:
        def receive(sender: Any, **told: Any) -> None:
            told.pop("signal")
            self.told.append((name, sender, told))
            pk = told["job_id"] if "job_id" in told else told["task_result"].id
            self.states.append(row(pk).state)

        signal.connect(receive)
        self._connected.append((signal, receive))

    def leave(self) -> None:
        for signal, receive in self._connected:
            signal.disconnect(receive)

    def names(self) -> list[str]:
        return [name for name, _, _ in self.told]

    def of(self, name: str) -> dict[str, Any]:
        [told] = [told for heard, _, told in self.told if heard == name]
        return told


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    for name, signal in JOB_SIGNALS.items():
        made.listen_to(name, signal)
    yield made
    made.leave()


@pytest.fixture
def connect() -> Iterator[Callable[[Signal, Callable[..., Any]], None]]:
    connected: list[tuple[Signal, Callable[..., Any]]] = []

    def connect(signal: Signal, receive: Callable[..., Any]) -> None:
        signal.connect(receive)
        connected.append((signal, receive))

    yield connect
    for signal, receive in connected:
        signal.disconnect(receive)


def tell(job: ClaimedJob) -> Outcome:
    """Run a job, write its outcome and announce it, as a worker does."""
    [outcome] = write(run(job)).done
    announce(outcome)
    return outcome


# What is told


def test_a_success_is_told_after_it_is_written(receiver: Receiver) -> None:
    job = claimed_job(do, returning("done"))

    outcome = tell(job)

    told = {"job_id": job.id, "task_path": "tests.worker_tasks.do", "queue_name": "default"}
    told |= {"attempt": 1, "worker_id": "w1"}
    assert receiver.names() == ["job_started", "task_started", "job_succeeded", "task_finished"]
    assert receiver.states == [JobState.RUNNING] * 2 + [JobState.SUCCEEDED] * 2
    assert receiver.of("job_started") == told
    assert receiver.of("job_succeeded") == told | {"duration": outcome.duration, "exception": None}


def test_a_failure_is_told_with_its_exception(receiver: Receiver) -> None:
    error = ValueError("no")

    tell(claimed_job(do_once, raising(error)))

    assert receiver.names()[2:] == ["job_failed", "task_finished"]
    assert receiver.states[2:] == [JobState.FAILED] * 2
    assert receiver.of("job_failed")["exception"] is error


def test_a_retry_is_told_with_its_delay_and_is_no_end(receiver: Receiver) -> None:
    outcome = tell(claimed_job(do, raising(ValueError("no"))))

    told = receiver.of("job_retrying")
    assert receiver.names()[2:] == ["job_retrying"]
    assert receiver.states[2:] == [JobState.SCHEDULED]
    assert (told["delay"], str(told["exception"])) == (outcome.delay, "no")


def test_a_snooze_is_told_with_its_delay_and_is_no_end(receiver: Receiver) -> None:
    tell(claimed_job(do, raising(Snooze(90))))

    assert receiver.names()[2:] == ["job_snoozed"]
    assert receiver.of("job_snoozed")["delay"] == 90.0


@pytest.mark.parametrize("error", [Cancel("not wanted"), JobCancelled("not wanted")])
def test_a_cancelled_job_is_told_as_its_result_has_it(receiver: Receiver, error: BaseException) -> None:
    job = claimed_job(do, raising(error))

    tell(job)

    told = receiver.of("task_finished")["task_result"]
    assert receiver.names()[2:] == ["job_cancelled", "task_finished"]
    assert receiver.of("job_cancelled")["exception"] is error
    assert told.status == TaskResultStatus.FAILED
    assert [e.exception_class for e in told.errors] == [JobCancelled]
    assert [e.exception_class for e in do.get_result(str(job.id)).errors] == [JobCancelled]


def test_a_job_that_somebody_cancelled_while_it_ran_is_told_as_cancelled(receiver: Receiver) -> None:
    job = claimed_job(do, returning("done"))
    Job.objects.filter(pk=job.id).cancel()

    tell(job)

    assert receiver.names()[2:] == ["job_cancelled", "task_finished"]
    assert isinstance(receiver.of("job_cancelled")["exception"], JobCancelled)


def test_a_job_that_is_given_back_is_told_to_nobody(receiver: Receiver) -> None:
    job = claimed_job(do, returning(None))
    [outcome] = write(Outcome(job, "release")).done

    announce(outcome)

    assert receiver.told == []


# Django's own signals


def test_the_sender_of_djangos_signals_is_the_class_of_the_backend(receiver: Receiver) -> None:
    tell(claimed_job(do, returning(None)))

    senders = {name: sender for name, sender, _ in receiver.told}
    assert senders["task_started"] is senders["task_finished"] is JobsBackend
    assert senders["job_started"] is senders["job_succeeded"] is Job


def test_a_job_whose_backend_is_gone_from_the_settings_is_told_as_ours(receiver: Receiver) -> None:
    job = claimed_job(do, returning(None))
    Job.objects.filter(pk=job.id).release("w1", [job.id])
    Job.objects.filter(pk=job.id).update(backend="gone")

    tell(claim(limit=1)[0])

    assert {sender for name, sender, _ in receiver.told if name.startswith("task")} == {JobsBackend}


def test_a_started_task_is_running_and_a_finished_one_has_its_value(receiver: Receiver) -> None:
    job = claimed_job(do, returning({"rows": 3}))
    before = timezone.now()

    tell(job)

    after = timezone.now()
    started, finished = receiver.of("task_started")["task_result"], receiver.of("task_finished")["task_result"]
    assert (started.status, started.id, started.attempts) == (TaskResultStatus.RUNNING, str(job.id), 1)
    assert (finished.status, finished.return_value) == (TaskResultStatus.SUCCESSFUL, {"rows": 3})
    assert before <= finished.finished_at <= after


def test_a_failed_task_has_the_errors_of_all_its_attempts(receiver: Receiver) -> None:
    job = claimed_job(do.using(max_attempts=2), raising(ValueError("no")))
    tell(job)
    Job.objects.filter(pk=job.id).stage()

    tell(claim(limit=1)[0])

    result = receiver.of("task_finished")["task_result"]
    assert (result.status, result.worker_ids) == (TaskResultStatus.FAILED, ["w1", "w1"])
    assert [error.exception_class for error in result.errors] == [ValueError, ValueError]
    assert "ValueError: no" in result.errors[1].traceback


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit("no"), KeyboardInterrupt("no")])
def test_djangos_log_of_a_failed_task_has_its_exception(caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    job = claimed_job(do_once, raising(error))

    tell(job)

    [record] = [record for record in caplog.records if record.name == PACKAGE and record.levelname == "ERROR"]
    assert f"id={job.id} path=tests.worker_tasks.do_once state=FAILED" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_djangos_log_of_a_task_that_succeeded_has_no_exception(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, PACKAGE)

    tell(claimed_job(do, returning(None)))

    [record] = [record for record in caplog.records if "state=SUCCESSFUL" in record.getMessage()]
    assert record.exc_info is None


def test_a_job_of_an_unknown_task_is_told_as_ours_only(receiver: Receiver) -> None:
    start_worker()
    result = tasks.noop.using(max_attempts=1).enqueue()
    Job.objects.filter(pk=result.id).update(task_path="gone")

    tell(claim(limit=1)[0])

    assert receiver.names() == ["job_started", "job_retrying"]
    _, _, told = receiver.told[-1]
    assert isinstance(told["exception"], UnknownTask)
    assert told["delay"] > 1
