"""Workers and supervisors that die, and jobs that kill their worker: nothing is lost, nothing loops."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from django.db import connection, transaction
from django.db.models import QuerySet

from django_jobs.models import Attempt, Worker
from django_jobs.states import AttemptOutcome, JobState, WorkerState
from tests import jobs
from tests.processes import Command, wait_until, workers_of

from .conftest import Start
from .freezing import freeze
from .ledger import Ledger
from .observe import (
    PATIENCE,
    crashes_of,
    outcomes_of,
    row,
    state_of,
    wait_for_another_worker,
    wait_for_state,
    wait_until_finished,
    worker_of,
)

pytestmark = pytest.mark.slow

# The heartbeat timeout of these workers, and the 5 s that the promise of a rescue adds to it.
RESCUED_WITHIN = 1 + 5

Record = Callable[[str, object], None]


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_for_leader(command: Command) -> None:
    """Wait until the supervisor of a command leads."""
    wait_until(lambda: Worker.objects.filter(pid=command.pid, is_leader=True).exists(), message="a leader")


def seconds_until_begun_again(ledger: Ledger, count: int) -> float:
    """Wait until so many jobs have begun their second attempt; return how long that took."""
    since = time.monotonic()

    def begun_again() -> bool:
        return sum(entry.attempt == 2 for entry in ledger.entries("begin")) == count

    wait_until(begun_again, timeout=PATIENCE, message=f"the second attempt of {count} jobs")
    return max(entry.at for entry in ledger.entries("begin")) - since


def test_jobs_of_a_killed_worker_run_again_and_the_worker_is_replaced(
    start: Start, ledger: Ledger, record_property: Record
) -> None:
    command = start("--processes=2", workers=2)
    job = jobs.hold.enqueue()
    (begun,) = wait_until(lambda: ledger.entries("begin"))
    killed = Worker.objects.get(kind="worker", pid=begun.pid)

    os.kill(killed.pid, signal.SIGKILL)

    seconds = seconds_until_begun_again(ledger, 1)
    record_property("rescue_of_a_worker_s", seconds)
    assert seconds < RESCUED_WITHIN
    wait_until(lambda: workers_of(command).count() == 2, timeout=PATIENCE, message="a new worker")
    killed.refresh_from_db()
    assert killed.state == WorkerState.LOST
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    assert row(job).attempt == 2
    (attempt,) = Attempt.objects.all()
    assert (attempt.outcome, attempt.worker_id) == (AttemptOutcome.CRASHED, killed.worker_id)
    assert "SIGKILL" in attempt.message


def test_another_supervisor_rescues_when_supervisor_and_worker_are_killed(
    start: Start, ledger: Ledger, record_property: Record
) -> None:
    doomed = start()
    wait_for_leader(doomed)
    held = jobs.hold.enqueue_many([((), {})] * 2)
    wait_until(lambda: ledger.count("begin") == 2)
    worker = worker_of(doomed)
    survivor = start()

    os.killpg(doomed.pid, signal.SIGKILL)

    seconds = seconds_until_begun_again(ledger, 2)
    record_property("rescue_of_a_host_s", seconds)
    assert seconds < RESCUED_WITHIN
    wait_for_leader(survivor)
    ledger.open_gate()
    wait_until_finished(held)
    assert {entry.pid for entry in ledger.entries("end")} == {worker_of(survivor).pid}
    for job in held:
        assert (state_of(job), row(job).attempt, outcomes_of(job)) == ("succeeded", 2, ["crashed"])
    lost = Worker.objects.filter(pid__in=[doomed.pid, worker.pid]).values_list("state", flat=True)
    assert list(lost) == [WorkerState.LOST] * 2


def test_a_worker_whose_supervisor_is_killed_finishes_its_jobs_and_ends(start: Start, ledger: Ledger) -> None:
    # A lease that outlasts the test: only the worker's own watch over its supervisor can end it.
    command = start("--heartbeat-interval=10", "--heartbeat-timeout=60")
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    worker = worker_of(command)

    command.kill()

    wait_until(lambda: "drains" in command.output(), message="the worker to see that it is alone")
    later = jobs.touch.enqueue()
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    wait_until(lambda: is_gone(worker.pid), message="the end of the worker")
    worker.refresh_from_db()
    assert worker.state == WorkerState.STOPPED
    assert outcomes_of(job) == []
    assert state_of(later) == JobState.READY


def test_jobs_of_a_worker_whose_supervisor_is_killed_go_on_under_another(start: Start, ledger: Ledger) -> None:
    orphaned = start()
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    worker = worker_of(orphaned)
    start()

    orphaned.kill()

    assert seconds_until_begun_again(ledger, 1) < RESCUED_WITHIN
    wait_until(lambda: is_gone(worker.pid), message="the end of the worker without a lease")
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    assert [entry.attempt for entry in ledger.entries("end")] == [2]
    assert outcomes_of(job) == [AttemptOutcome.CRASHED]


@pytest.mark.parametrize(("how", "max_attempts"), [("exit", 3), ("kill", 2)])
def test_a_job_that_kills_its_worker_each_time_fails_and_the_workers_live_on(
    start: Start, ledger: Ledger, how: str, max_attempts: int
) -> None:
    command = start()

    job = jobs.kill_worker.using(max_attempts=max_attempts).enqueue(how)

    wait_for_state(job, JobState.FAILED)
    assert ledger.count("begin") == row(job).attempt == max_attempts
    assert crashes_of(job) == max_attempts
    after = jobs.touch.enqueue()
    wait_for_state(after, JobState.SUCCEEDED)
    assert ledger.count("begin") == max_attempts
    assert command.returncode is None


def test_a_killed_worker_is_replaced_though_processes_that_it_forked_live_on(start: Start, ledger: Ledger) -> None:
    command = start()
    jobs.leave_a_child.enqueue()
    wait_until(lambda: ledger.count("forked") == 1)
    killed = worker_of(command)

    os.kill(killed.pid, signal.SIGKILL)

    assert wait_for_another_worker(command, killed)
    after = jobs.touch.enqueue()
    wait_for_state(after, JobState.SUCCEEDED)
    ledger.open_gate()


def test_a_worker_whose_interpreter_is_held_by_c_code_is_not_taken_for_dead(start: Start, ledger: Ledger) -> None:
    command = start("--heartbeat-timeout=2")
    worker = worker_of(command)
    # Its leader looks for dead workers too.
    start("--heartbeat-timeout=2", "--queue=mail")
    jobs_of_the_first = jobs.hold_interpreter.enqueue(6)
    wait_until(lambda: ledger.count("begin") == 1)

    # Three times the heartbeat timeout.
    wait_for_state(jobs_of_the_first, JobState.SUCCEEDED)

    assert ledger.count("begin") == ledger.count("end") == 1
    assert not Attempt.objects.exists()
    assert worker_of(command) == worker


def test_a_worker_that_stands_still_is_killed_and_replaced(start: Start, ledger: Ledger) -> None:
    command = start("--hang-timeout=4")
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    frozen = worker_of(command)

    freeze(frozen.pid)

    assert wait_for_another_worker(command, frozen)
    assert is_gone(frozen.pid)
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    assert outcomes_of(job) == [AttemptOutcome.CRASHED]


def kill_one_of(workers: QuerySet[Worker]) -> bool:
    for pid in workers.order_by("?").values_list("pid", flat=True):
        # The row of one that was killed before may not say so yet.
        if not is_gone(pid):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def test_workers_that_are_killed_again_and_again_lose_no_job(start: Start, ledger: Ledger) -> None:
    command = start("--processes=2", workers=2)
    many = jobs.pause_briefly.using(max_attempts=20).enqueue_many([((0.02,), {})] * 200)

    for count in (10, 70, 130):
        wait_until(lambda count=count: ledger.count("end") > count, timeout=PATIENCE)
        wait_until(lambda: kill_one_of(workers_of(command)), timeout=PATIENCE)

    wait_until_finished(many)
    assert {state_of(job) for job in many} == {JobState.SUCCEEDED}
    # What ran twice was in the middle of an attempt when its worker was killed, and its history says so.
    crashed = Attempt.objects.filter(outcome=AttemptOutcome.CRASHED).values_list("job_id", flat=True)
    assert {job_id for job_id, times in ledger.times_run().items() if times > 1} <= set(crashed)
    assert ledger.times_run().keys() == {int(job.id) for job in many}


def test_a_killed_worker_whose_row_is_locked_is_rescued_once_it_is_free(start: Start, ledger: Ledger) -> None:
    if not connection.features.has_select_for_update:
        pytest.skip("this database locks no rows")
    command = start("--heartbeat-interval=10", "--heartbeat-timeout=60")
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    killed = worker_of(command)

    # As a heartbeat has it for a moment.
    with transaction.atomic():
        Worker.objects.select_for_update().get(pk=killed.pk)
        os.kill(killed.pid, signal.SIGKILL)
        wait_for_another_worker(command, killed)

    # Long before the lease ends.
    assert seconds_until_begun_again(ledger, 1) < RESCUED_WITHIN
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    assert outcomes_of(job) == [AttemptOutcome.CRASHED]
