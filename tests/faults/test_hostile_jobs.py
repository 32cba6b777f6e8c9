"""Jobs that hang where nobody can stop them, leave things behind, or return and raise what cannot be kept."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection

from django_jobs.models import Attempt, Result
from django_jobs.states import AttemptOutcome, JobState
from tests import hostile_jobs, jobs
from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.process.observe import (
    outcomes_of,
    row,
    state_of,
    states_of,
    wait_for_state,
    wait_until_finished,
    worker_of,
)
from tests.processes import wait_until, workers_of

pytestmark = pytest.mark.slow

is_postgresql = connection.features.has_select_for_update
on_postgresql = pytest.mark.skipif(
    not is_postgresql, reason="SQLite has no settings that time out and no advisory locks"
)

ADVISORY_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


def result_of(job: Any) -> Any:
    return Result.objects.get(job=job.id).value


# Code that does not return to Python


@pytest.mark.parametrize("processes", [0, 1])
def test_a_job_that_hangs_in_c_keeps_neither_the_others_nor_the_end(
    start: Start, ledger: Ledger, processes: int
) -> None:
    command = start(f"--processes={processes}", "--shutdown-timeout=0.2")
    hanging = hostile_jobs.sleep_in_c.enqueue(60)
    wait_until(lambda: ledger.count("begin") == 1)

    others = jobs.touch.enqueue_many([((), {})] * 20)
    wait_until_finished(others)
    command.terminate()

    assert command.wait() == 1
    assert states_of(others) == {JobState.SUCCEEDED}
    stored = row(hanging)
    assert (stored.state, stored.max_attempts - stored.attempt) == (JobState.READY, 3)
    assert outcomes_of(hanging) == [AttemptOutcome.INTERRUPTED]


def test_a_job_that_holds_the_interpreter_for_ever_costs_its_worker_and_not_the_others(
    start: Start, ledger: Ledger
) -> None:
    command = start("--processes=2", "--concurrency=1", "--hang-timeout=3", workers=2)
    before = set(workers_of(command).values_list("worker_id", flat=True))
    hanging = hostile_jobs.hold_interpreter_once.enqueue(60)
    (begun,) = wait_until(lambda: ledger.entries("begin"))

    others = jobs.touch.enqueue_many([((), {})] * 20)
    wait_until_finished(others)

    # By the other worker, while this one stood still.
    assert begun.pid not in {entry.pid for entry in ledger.entries("ran")}
    wait_for_state(hanging, JobState.FAILED)
    assert outcomes_of(hanging) == [AttemptOutcome.CRASHED]
    assert "SIGKILL" in Attempt.objects.get(job=hanging.id).message
    renewed = wait_until(lambda: set(workers_of(command).values_list("worker_id", flat=True)) - before)
    # With SQLite it may stand still in the middle of a write, and the other behind it.
    assert len(renewed) == 1 or not is_postgresql


@pytest.mark.long
def test_a_worker_whose_interpreter_is_held_for_ever_is_killed_at_the_end(start: Start, ledger: Ledger) -> None:
    command = start("--shutdown-timeout=0.2")
    hanging = hostile_jobs.hold_interpreter_once.using(max_attempts=2).enqueue(60)
    wait_until(lambda: ledger.count("begin") == 1)

    command.terminate()

    assert command.wait(25) == 1
    assert "has not stopped in time and is killed" in command.output()
    assert state_of(hanging) == JobState.READY
    assert outcomes_of(hanging) == [AttemptOutcome.CRASHED]


# What jobs leave behind


@pytest.mark.parametrize("processes", [0, 1])
def test_a_thread_that_a_job_has_left_behind_does_not_keep_the_command(
    start: Start, ledger: Ledger, processes: int
) -> None:
    command = start(f"--processes={processes}")
    leaving = hostile_jobs.leave_a_thread.enqueue()
    wait_for_state(leaving, JobState.SUCCEEDED)
    after = jobs.touch.enqueue()
    wait_for_state(after, JobState.SUCCEEDED)

    assert command.stop() == 0


@pytest.mark.parametrize(
    ("left", "query", "clean"),
    [
        pytest.param("transaction", "SELECT count(*) FROM auth_group", 0, id="transaction"),
        pytest.param("SET statement_timeout = 1234", "SHOW statement_timeout", "0", id="setting", marks=on_postgresql),
        pytest.param("SELECT pg_advisory_lock(7)", ADVISORY_LOCKS, 0, id="advisory-lock", marks=on_postgresql),
        pytest.param("CREATE TEMP TABLE auth_group (name text)", "SELECT count(*) FROM auth_group", 1, id="table"),
    ],
)
def test_the_next_job_does_not_see_what_a_job_has_left_in_its_session(
    start: Start, left: str, query: str, clean: object
) -> None:
    command = start("--concurrency=1")
    if clean == 1:
        Group.objects.create(name="the real table")

    leaving = hostile_jobs.leave_in_the_session.enqueue(left)
    wait_for_state(leaving, JobState.SUCCEEDED)
    looking = hostile_jobs.look_at_the_session.enqueue(query)

    wait_for_state(looking, JobState.SUCCEEDED)
    assert result_of(looking) == [False, clean, worker_of(command).pid]


# What jobs raise and return


def test_an_error_that_nobody_can_read_or_pickle_fails_its_job_and_is_in_its_history(start: Start) -> None:
    command = start()
    worker = worker_of(command)

    odd, after = hostile_jobs.raise_what_nobody_can_read_or_pickle.enqueue(), jobs.touch.enqueue()

    wait_for_state(odd, JobState.FAILED)
    wait_for_state(after, JobState.SUCCEEDED)
    attempt = Attempt.objects.get(job=odd.id)
    assert attempt.exception_class.endswith("raise_what_nobody_can_read_or_pickle.<locals>.Unreadable")
    assert "RuntimeError" in attempt.message
    assert "raise_what_nobody_can_read_or_pickle" in attempt.traceback
    assert worker_of(command) == worker


def test_fifty_megabytes_fail_their_job_with_a_clear_message_and_spoil_nothing_else(
    start: Start, ledger: Ledger
) -> None:
    command = start()
    worker = worker_of(command)
    beside = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)

    large = hostile_jobs.return_megabytes.enqueue(50)
    others = jobs.touch.enqueue_many([((), {})] * 20)

    wait_for_state(large, JobState.FAILED)
    wait_until_finished(others)
    ledger.open_gate()
    wait_for_state(beside, JobState.SUCCEEDED)
    assert states_of(others) == {JobState.SUCCEEDED}
    attempt = Attempt.objects.get(job=large.id)
    assert attempt.exception_class == "django_jobs.exceptions.InvalidResult"
    assert "takes 52,428,802 bytes as JSON, more than MAX_RESULT_BYTES" in attempt.message
    assert not Result.objects.exists()
    assert worker_of(command) == worker
