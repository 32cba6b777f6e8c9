"""Signals beyond the usual two: whoever sends them, at once and in any number, no job is lost or charged."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from django_jobs.models import Attempt
from django_jobs.states import AttemptOutcome, JobState
from tests import jobs
from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.process.observe import outcomes_of, row, states_of, wait_for_state, wait_until_finished, worker_of
from tests.process.test_shutdown import wait_until_stopping
from tests.processes import Command, wait_until

pytestmark = pytest.mark.slow

Stop = Callable[[Command], None]


def to_all(command: Command) -> None:
    """Quit as a terminal does with Ctrl-\\."""
    os.killpg(command.pid, signal.SIGQUIT)


def to_command(command: Command) -> None:
    command.send_signal(signal.SIGQUIT)


def assert_given_back(*given_back: Any) -> None:
    for job in given_back:
        stored = row(job)
        assert (stored.state, stored.worker_id) == (JobState.READY, "")
        assert stored.max_attempts - stored.attempt == 3, f"job {job.id} has lost an attempt"
        assert outcomes_of(job) == [AttemptOutcome.INTERRUPTED]


@pytest.mark.parametrize(("stop", "processes"), [(to_all, 0), (to_all, 1), (to_command, 1)])
def test_sigquit_ends_the_command_at_once_and_gives_its_jobs_back(
    start: Start, ledger: Ledger, stop: Stop, processes: int
) -> None:
    command = start(f"--processes={processes}", "--shutdown-timeout=60")
    held = [jobs.hold.enqueue(), jobs.hold_async.enqueue()]
    wait_until(lambda: ledger.count("begin") == 2)

    stop(command)

    assert command.wait() == 1
    assert_given_back(*held)
    assert ledger.count("end") == 0


def test_sigquit_to_a_worker_shows_its_stacks_and_nothing_else(start: Start, ledger: Ledger) -> None:
    command = start()
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    worker = worker_of(command)

    os.kill(worker.pid, signal.SIGQUIT)

    wait_until(lambda: " in hold\n" in command.output(), message="the stack of the job")
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    assert outcomes_of(job) == []
    assert worker_of(command) == worker


@pytest.mark.parametrize(("number", "processes"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)])
def test_five_signals_in_a_row_give_long_jobs_back(start: Start, ledger: Ledger, number: int, processes: int) -> None:
    command = start(f"--processes={processes}", "--shutdown-timeout=60")
    held = [jobs.hold.enqueue(), jobs.hold_stubbornly.enqueue()]
    wait_until(lambda: ledger.count("begin") == 2)

    # The kernel makes one of those that come before the first is seen.
    command.send_signal(number)
    wait_until_stopping(command)
    for _ in range(4):
        with suppress(ProcessLookupError):
            command.send_signal(number)

    assert command.wait() == 1
    assert_given_back(*held)
    assert "Traceback" not in command.output()
    assert Attempt.objects.count() == 2


def test_five_signals_in_a_row_let_short_jobs_end_once(start: Start, ledger: Ledger) -> None:
    command = start()
    many = jobs.touch.enqueue_many([((), {})] * 300)
    wait_until(lambda: ledger.count("ran") > 20)

    for _ in range(5):
        with suppress(ProcessLookupError):
            command.send_signal(signal.SIGTERM)

    assert command.wait() in (0, 1)
    assert states_of(many) <= {JobState.SUCCEEDED, JobState.READY}
    # Those that were given back in the middle may have said before that they ran; their history tells of it.
    start()
    wait_until_finished(many)
    assert states_of(many) == {JobState.SUCCEEDED}
    interrupted = set(Attempt.objects.values_list("job_id", flat=True))
    assert {job_id for job_id, times in ledger.times_run().items() if times > 1} <= interrupted
    assert ledger.times_run().keys() == {int(job.id) for job in many}
