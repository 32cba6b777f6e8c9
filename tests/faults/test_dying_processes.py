"""Workers that die of their jobs, or in part, or only stand still: siblings are not blamed, and the command goes on."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from django.db.models.functions import Now

from django_jobs.models import Attempt, Job, Worker
from django_jobs.states import AttemptOutcome, JobState, WorkerState
from tests import hostile_jobs, jobs
from tests.process.conftest import Start
from tests.process.freezing import freeze, freeze_all, thaw
from tests.process.ledger import Ledger
from tests.process.observe import (
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
from tests.process.test_frozen import outlast_the_leases
from tests.processes import wait_until

pytestmark = pytest.mark.slow


def charged_crashes(job: Any) -> int:
    """Return how many of a job's attempts were used up by crashes."""
    stored = row(job)
    used = stored.attempt - (stored.max_attempts - 3)
    return used - (stored.state == JobState.SUCCEEDED)


def has_failed_if_nobody_waits(job: Any) -> bool:
    """Have the job run at once if it waits, as a person does with "run now"; say whether it has failed."""
    Job.objects.filter(pk=job.id).stage()
    return state_of(job) == JobState.FAILED


# Jobs that kill their worker


def test_a_job_that_segfaults_each_time_fails_and_says_so(start: Start, ledger: Ledger) -> None:
    command = start()

    job = hostile_jobs.segfault.using(max_attempts=2).enqueue()

    wait_for_state(job, JobState.FAILED)
    assert ledger.count("begin") == 2
    assert outcomes_of(job) == [AttemptOutcome.CRASHED] * 2
    assert all("SIGSEGV" in attempt.message for attempt in Attempt.objects.all())
    after = jobs.touch.enqueue()
    wait_for_state(after, JobState.SUCCEEDED)
    assert command.returncode is None


def test_a_job_that_is_killed_each_time_fails_and_the_one_beside_it_does_not(start: Start, ledger: Ledger) -> None:
    start("--concurrency=2")
    sibling = jobs.hold.enqueue()
    killer = hostile_jobs.be_killed_beside_others.enqueue()

    wait_until(lambda: has_failed_if_nobody_waits(killer), timeout=60, message="the end of the killer")

    assert charged_crashes(killer) == 3
    # They crashed together more than once, and it counted once.
    assert crashes_of(sibling) >= 2
    assert charged_crashes(sibling) == 1
    ledger.open_gate()
    Job.objects.filter(pk=sibling.id).stage()
    wait_for_state(sibling, JobState.SUCCEEDED)


@pytest.mark.long
@pytest.mark.parametrize("place", [0, 4])
def test_a_job_that_is_killed_each_time_is_found_among_many(start: Start, ledger: Ledger, place: int) -> None:
    start("--concurrency=5")
    tasks: list[Any] = [(jobs.hold, (), {})] * 4
    tasks.insert(place, (hostile_jobs.be_killed_beside_others, (), {}))
    together = jobs.hold.get_backend().enqueue_many(tasks)
    killer = together[place]

    wait_for_state(killer, JobState.FAILED, timeout=240)

    ledger.open_gate()
    wait_until_finished(together, timeout=240)
    assert charged_crashes(killer) == 3
    for job in together:
        if job.id != killer.id:
            assert (state_of(job), charged_crashes(job)) == (JobState.SUCCEEDED, 1)


def test_a_job_that_asks_for_too_much_memory_fails_alone(start: Start, ledger: Ledger) -> None:
    command = start()
    beside = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    worker = worker_of(command)

    greedy = hostile_jobs.ask_for_too_much_memory.enqueue()

    wait_for_state(greedy, JobState.FAILED)
    assert Attempt.objects.get(job=greedy.id).exception_class == "builtins.MemoryError"
    ledger.open_gate()
    wait_for_state(beside, JobState.SUCCEEDED)
    assert worker_of(command) == worker


# Workers that stand still


def test_a_worker_that_stands_still_beyond_its_lease_goes_on_where_it_was(start: Start, ledger: Ledger) -> None:
    # Leases that outlast what a busy machine does to a supervisor.
    command = start("--heartbeat-timeout=2")
    # Another leader, which looks for dead workers too.
    start("--heartbeat-timeout=2")
    job = jobs.hold.enqueue()
    (begun,) = wait_until(lambda: ledger.entries("begin"))
    worker = Worker.objects.get(kind="worker", pid=begun.pid)

    freeze(worker.pid)
    # Its supervisor beats for it, three leases long.
    for _ in range(3):
        worker.refresh_from_db()
        until = worker.expires_at
        wait_until(lambda until=until: Worker.objects.filter(pk=worker.pk, last_seen__gt=until).exists())
    thaw(worker.pid)

    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    assert not Attempt.objects.exists()
    assert ledger.count("begin") == ledger.count("end") == 1
    assert Worker.objects.filter(pk=worker.pk, state=WorkerState.RUNNING, expires_at__gt=Now()).exists()
    assert command.returncode is None


def test_a_worker_without_a_supervisor_ends_when_others_took_its_jobs_while_it_stood_still(
    start: Start, ledger: Ledger
) -> None:
    frozen = start("--processes=0")
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    freeze_all(frozen)
    other = start()
    outlast_the_leases(frozen)
    wait_until(lambda: ledger.count("begin") == 2, timeout=PATIENCE, message="the other host to take the job")

    frozen.send_signal(signal.SIGCONT)

    assert frozen.wait() == 4
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    assert row(job).worker_id == worker_of(other).worker_id
    assert outcomes_of(job) == [AttemptOutcome.CRASHED]


# Parts that die


@pytest.mark.parametrize("name", ["django_jobs exchange", "django_jobs event loop", "django_jobs thread"])
def test_a_worker_of_which_a_thread_dies_ends_and_is_replaced(start: Start, ledger: Ledger, name: str) -> None:
    command = start()
    worker = worker_of(command)

    job = hostile_jobs.kill_a_thread.enqueue(name)

    wait_until(lambda: ledger.count("killed") == 1)
    # An idle thread dies when it is woken.
    following = [jobs.touch.enqueue(), jobs.hold_async.enqueue()]
    ledger.open_gate()
    assert wait_for_another_worker(command, worker)
    assert f"Worker {worker.worker_id} ended with exit code 3" in command.output()
    wait_until_finished([job, *following])
    assert {state_of(each) for each in [job, *following]} == {JobState.SUCCEEDED}
    # What had begun may be what killed it; what had not is given back.
    assert outcomes_of(job) == [AttemptOutcome.CRASHED]
    assert row(job).attempt == 2
    assert command.returncode is None


def test_a_supervisor_of_which_a_thread_dies_ends_and_its_jobs_are_not_lost(start: Start, ledger: Ledger) -> None:
    command = start(env={"DJANGO_SETTINGS_MODULE": "tests.faults.settings_with_a_dying_duty"})
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)

    ledger.open_gate("duty")

    wait_until(lambda: "has died" in command.output(), message="the supervisor to take note")
    ledger.open_gate()
    assert command.wait() == 3
    assert state_of(job) == JobState.SUCCEEDED
    assert outcomes_of(job) == []
    assert not Worker.objects.live().exists()
