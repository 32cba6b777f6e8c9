"""The end of workers by signals: what has begun finishes or is given back, and nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import pytest

from django_jobs.models import Attempt, Job, Worker
from django_jobs.states import AttemptOutcome, JobState, WorkerState
from tests import jobs
from tests.processes import Command, wait_until

from .conftest import Start
from .ledger import Ledger
from .observe import (
    keep_busy_and_claim_ahead,
    outcomes_of,
    row,
    state_of,
    states_of,
    wait_for_another_worker,
    wait_for_state,
    wait_until_finished,
    worker_of,
)

pytestmark = pytest.mark.slow

# How a person, a terminal and a service manager ask a runworker to stop.
TO_SUPERVISOR = pytest.param(lambda command: command.terminate(), id="SIGTERM")
CTRL_C = pytest.param(lambda command: os.killpg(command.pid, signal.SIGINT), id="Ctrl-C")
TO_ALL = pytest.param(lambda command: os.killpg(command.pid, signal.SIGTERM), id="SIGTERM-to-all")

Stop = Callable[[Command], None]


def wait_until_stopping(command: Command) -> None:
    """Wait until the worker of a command has taken note that it shall stop, and claims nothing more."""
    supervisor = Worker.objects.filter(pid=command.pid).values_list("worker_id", flat=True)
    stopping = Worker.objects.filter(state=WorkerState.STOPPING)
    wait_until(
        lambda: stopping.filter(supervisor__in=list(supervisor)).exists() or stopping.filter(pid=command.pid).exists(),
        message="a worker that stops",
    )


def assert_given_back(job: Any, max_attempts: int = 4) -> None:
    """Assert that a job which had been claimed once is as good as one that was never claimed."""
    stored = row(job)
    assert (stored.state, stored.attempt, stored.max_attempts) == (JobState.READY, 1, max_attempts)
    assert stored.worker_id == ""
    assert outcomes_of(job) == [AttemptOutcome.INTERRUPTED]


@pytest.mark.parametrize("stop", [TO_SUPERVISOR, CTRL_C, TO_ALL])
def test_the_first_signal_lets_running_jobs_finish(start: Start, ledger: Ledger, stop: Stop) -> None:
    command = start()
    held = [jobs.hold.enqueue(), jobs.hold_async.enqueue()]
    wait_until(lambda: ledger.count("begin") == 2)

    stop(command)

    wait_until_stopping(command)
    later = jobs.touch.enqueue()
    ledger.open_gate()
    assert command.wait() == 0
    for job in held:
        assert (state_of(job), row(job).attempt, outcomes_of(job)) == (JobState.SUCCEEDED, 1, [])
    assert (state_of(later), row(later).attempt) == (JobState.READY, 0)
    assert set(Worker.objects.values_list("kind", "state")) == {("supervisor", "stopped"), ("worker", "stopped")}


@pytest.mark.parametrize("stop", [TO_SUPERVISOR, CTRL_C, TO_ALL])
def test_the_second_signal_ends_running_jobs_now(start: Start, ledger: Ledger, stop: Stop) -> None:
    command = start("--shutdown-timeout=60")
    held = [jobs.hold.enqueue(), jobs.hold_async.enqueue()]
    wait_until(lambda: ledger.count("begin") == 2)
    stop(command)
    wait_until_stopping(command)

    stop(command)

    assert command.wait() == 1
    for job in held:
        assert_given_back(job)
    assert ledger.count("end") == 0
    assert set(Worker.objects.values_list("state", flat=True)) == {WorkerState.STOPPED}


@pytest.mark.parametrize("task", [jobs.hold, jobs.hold_async, jobs.hold_stubbornly])
def test_a_job_longer_than_the_shutdown_timeout_is_ready_again(start: Start, ledger: Ledger, task: Any) -> None:
    command = start("--shutdown-timeout=0.2")
    job = task.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)

    command.terminate()

    wait_for_state(job, JobState.READY)
    assert command.wait() == 1
    assert_given_back(job)
    assert ledger.count("end") == 0
    # It is as good as new: it runs on the next worker.
    ledger.open_gate()
    start()
    wait_for_state(job, JobState.SUCCEEDED)


def test_jobs_that_were_claimed_ahead_are_given_back_at_once(start: Start, ledger: Ledger) -> None:
    command = start("--shutdown-timeout=60")
    _, waiting = keep_busy_and_claim_ahead()

    command.terminate()

    wait_until(lambda: states_of(waiting) == {JobState.READY}, message="what had not begun to be given back")
    assert ledger.count("end") == 0
    for job in map(row, waiting):
        assert job.max_attempts - job.attempt == 5, f"job {job.pk} has lost an attempt"
    ledger.open_gate()
    assert command.wait() == 0
    assert ledger.count("ran") == 0


def test_restarts_in_the_middle_of_many_jobs_lose_and_double_none(start: Start, ledger: Ledger) -> None:
    many = jobs.touch.enqueue_many([((), {})] * 600)

    for count in (50, 200):
        command = start("--concurrency=4")
        wait_until(lambda count=count: ledger.count("ran") > count, message=f"{count} jobs")
        assert command.stop() == 0
        assert not Job.objects.running().exists()

    start("--concurrency=4")
    wait_until_finished(many)
    assert set(ledger.times_run().values()) == {1}
    assert len(ledger.times_run()) == 600
    assert set(Attempt.objects.values_list("outcome", flat=True)) <= {AttemptOutcome.INTERRUPTED}


def test_an_idle_worker_is_gone_within_a_second(start: Start, record_property: Callable[[str, object], None]) -> None:
    durations: list[float] = []
    # The best of a few: the machine of a test run may be busy with something else.
    while len(durations) < 4 and not any(seconds < 1 for seconds in durations):
        command = start("--poll-interval=10", "--heartbeat-interval=10", "--heartbeat-timeout=30")
        since = time.monotonic()
        assert command.stop() == 0
        durations.append(time.monotonic() - since)

    record_property("idle_stop_s", min(durations))
    assert min(durations) < 1


def test_a_worker_that_is_told_to_stop_by_itself_is_replaced(start: Start, ledger: Ledger) -> None:
    command = start()
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    told = worker_of(command)

    os.kill(told.pid, signal.SIGTERM)

    wait_until(lambda: Worker.objects.filter(pk=told.pk, state=WorkerState.STOPPING).exists())
    ledger.open_gate()
    assert wait_for_another_worker(command, told)
    assert (state_of(job), outcomes_of(job)) == (JobState.SUCCEEDED, [])
    assert command.returncode is None


@pytest.mark.parametrize("stop", [CTRL_C, TO_ALL])
def test_a_signal_while_the_workers_start_is_a_clean_stop(start: Start, stop: Stop) -> None:
    command = start("--processes=2", ready=False)
    supervisor = Worker.objects.filter(pid=command.pid, state=WorkerState.RUNNING)
    wait_until(lambda: supervisor.exists() and psutil.Process(command.pid).children(), message="processes that start")

    stop(command)

    assert command.wait() == 0
    assert "Traceback" not in command.output()
    assert not Worker.objects.live().exists()


class TestInOneProcess:
    """``--processes 0``, for debuggers: the worker in the process of the command."""

    def test_the_first_signal_lets_running_jobs_finish(self, start: Start, ledger: Ledger) -> None:
        command = start("--processes=0")
        job = jobs.hold.enqueue()
        wait_until(lambda: ledger.count("begin") == 1)
        assert {entry.pid for entry in ledger.entries()} == {command.pid}

        command.terminate()

        wait_until_stopping(command)
        ledger.open_gate()
        assert command.wait() == 0
        assert state_of(job) == JobState.SUCCEEDED
        assert set(Worker.objects.values_list("kind", "state")) == {("worker", "stopped")}

    def test_the_second_signal_ends_running_jobs_now(self, start: Start, ledger: Ledger) -> None:
        command = start("--processes=0", "--shutdown-timeout=60")
        job = jobs.hold.enqueue()
        wait_until(lambda: ledger.count("begin") == 1)
        command.send_signal(signal.SIGINT)
        wait_until_stopping(command)

        command.send_signal(signal.SIGINT)

        assert command.wait() == 1
        assert_given_back(job)

    def test_a_stubborn_job_does_not_keep_the_process(self, start: Start, ledger: Ledger) -> None:
        command = start("--processes=0", "--shutdown-timeout=0.2")
        job = jobs.hold_stubbornly.enqueue()
        wait_until(lambda: ledger.count("begin") == 1)

        command.terminate()

        assert command.wait() == 1
        assert_given_back(job)


@pytest.mark.parametrize("processes", [0, 1])
def test_a_storm_of_signals_ends_the_worker_all_the_same(start: Start, processes: int) -> None:
    command = start(f"--processes={processes}")
    worker = worker_of(command)

    # Each may come while the one before is being dealt with.
    for _ in range(500):
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGTERM)
    command.terminate()

    assert command.wait() == 0
