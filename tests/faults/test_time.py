"""Hosts whose clock is ten minutes wrong: the clock of the database is the only judge of what is due, lost and old.

All processes of such a host have the wrong clock, supervisor and worker. Times are measured by the machine's monotonic
clock, which is right, and which the ledger has too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from django_jobs.models import Attempt, Job, Lease, Queue, Schedule, Worker
from django_jobs.models.database import from_now
from django_jobs.models.lease import LEADER
from django_jobs.states import AttemptOutcome, JobState
from tests import jobs
from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.process.observe import PATIENCE, outcomes_of, row, wait_for_state, wait_until_finished, worker_of
from tests.processes import Command, wait_until
from tests.rows import claimed, outcome, start_worker, write

pytestmark = pytest.mark.slow

WRONG = Path(__file__).parent / "wrong_clock"
TEN_MINUTES = 600
# Far more than a busy machine is late, far less than the clocks are wrong.
SOON = 60.0
DELAYS = (0.5, 1.0, 1.5)


# Where a story takes long, it is told at once of the direction that would do the harm, and of the other by make faults.
FIRST_AHEAD = pytest.mark.parametrize(
    "offset", [TEN_MINUTES, pytest.param(-TEN_MINUTES, marks=pytest.mark.long)], ids=["ahead", "behind"], indirect=True
)
FIRST_BEHIND = pytest.mark.parametrize(
    "offset", [-TEN_MINUTES, pytest.param(TEN_MINUTES, marks=pytest.mark.long)], ids=["behind", "ahead"], indirect=True
)


@pytest.fixture(params=[TEN_MINUTES, -TEN_MINUTES], ids=["ahead", "behind"])
def offset(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def env(offset: int) -> dict[str, str]:
    """The environment of processes whose clock is wrong."""
    return {"JOBS_TEST_CLOCK_OFFSET": str(offset), "PYTHONPATH": str(WRONG)}


@pytest.fixture
def wrong(start: Start, env: dict[str, str]) -> Callable[..., Command]:
    """Return a function that starts a host whose clock is wrong."""
    return lambda *arguments, **options: start(*arguments, env=env, **options)


def begun(ledger: Ledger, job: Any) -> float:
    """Return when a job ran."""
    return ledger.entries("ran", job)[0].at


def test_everything_that_waits_runs_at_its_time_and_every_row_has_the_right_time(
    wrong: Callable[..., Command], ledger: Ledger, offset: int
) -> None:
    command = wrong()
    Queue.objects.declare("paused")
    since, now = time.monotonic(), timezone.now()
    told = jobs.tell_time.enqueue()
    failing = jobs.fail.enqueue()
    parent = jobs.enqueue_for_later.enqueue(1.0)
    by_delay = [jobs.touch.using(run_after=timedelta(seconds=delay)).enqueue() for delay in DELAYS]
    by_time = [jobs.touch.using(run_after=now + timedelta(seconds=delay)).enqueue() for delay in DELAYS]
    Queue.objects.pause("paused", resume_at=now + timedelta(seconds=1.5))
    paused = jobs.touch.using(queue_name="paused").enqueue()

    wait_until_finished([told, failing, parent, paused, *by_delay, *by_time], timeout=SOON)
    child = Job.objects.get(pk=row(parent).result.value)
    wait_until_finished([child], timeout=SOON)

    # Else all that follows would show nothing.
    assert abs(row(told).result.value - timezone.now().timestamp() - offset) < SOON
    for group in (by_delay, by_time):
        assert_in_time([begun(ledger, job) - since for job in group], DELAYS)
    assert_in_time([begun(ledger, paused) - since, begun(ledger, child) - begun(ledger, parent)], (1.5, 1.0))
    tries = [entry.at for entry in ledger.entries("begin", failing)]
    assert_in_time([later - earlier for earlier, later in pairwise(tries)], (0.3, 0.3))
    assert_right_times(command, [told, failing, child, paused])


def test_a_schedule_fires_by_the_clock_of_the_database(wrong: Callable[..., Command], ledger: Ledger) -> None:
    Schedule.objects.declare("each second", task=jobs.touch, cron="* * * * * *")
    wrong()
    since = timezone.now() - timedelta(seconds=SOON)

    wait_until(lambda: ledger.count("ran") >= 3, timeout=SOON, message="3 runs")

    Schedule.objects.pause("each second")
    moments = list(Job.objects.order_by("scheduled_for").values_list("scheduled_for", flat=True))
    assert all(since < moment <= timezone.now() for moment in moments)
    assert {later - earlier for earlier, later in pairwise(moments)} == {timedelta(seconds=1)}


def assert_in_time(seconds: Sequence[float], expected: Sequence[float]) -> None:
    assert all(least <= waited < least + SOON for waited, least in zip(seconds, expected, strict=True)), seconds


def assert_right_times(command: Command, jobs_of_it: Sequence[Any]) -> None:
    """Assert that the rows of these jobs, and what belongs to them, have the time of the database."""
    stored = [row(job) for job in jobs_of_it]
    moments = [moment for job in stored for moment in (job.enqueued_at, job.started_at, job.finished_at)]
    moments += [moment for each in Attempt.objects.all() for moment in (each.started_at, each.ended_at)]
    worker = worker_of(command)
    moments += [worker.started_at, worker.last_seen, worker.expires_at, Lease.objects.get().expires_at]
    now = timezone.now()
    assert all(moment is not None and abs((moment - now).total_seconds()) < SOON for moment in moments), moments
    assert all(job.enqueued_at <= job.started_at <= job.finished_at for job in stored)


@FIRST_AHEAD
def test_neither_a_wrong_worker_nor_those_beside_a_wrong_leader_lose_their_leases(
    wrong: Callable[..., Command], start: Start, ledger: Ledger
) -> None:
    # Longer than a busy machine keeps a host waiting, which the other one would take for dead.
    right, ours = (host("--heartbeat-timeout=3") for host in (start, wrong))
    held = jobs.hold.enqueue_many([((), {})] * 4)
    wait_until(lambda: ledger.count("begin") == 4, timeout=PATIENCE)

    # Each of them leads for longer than a lease, and looks for the lost many times.
    for host in (right, ours):
        _have_lead(host)
        until = time.monotonic() + 3.2
        wait_until(lambda until=until: time.monotonic() > until)

    assert not Attempt.objects.exists()
    assert set(Worker.objects.values_list("state", flat=True)) == {"running"}
    ledger.open_gate()
    wait_until_finished(held)
    assert set(ledger.times_run().values()) == {1}


def _have_lead(host: Command) -> None:
    """Have this host lead, and no other."""
    holder = Worker.objects.get(pid=host.pid, kind="supervisor").worker_id
    leaders = Worker.objects.filter(is_leader=True).values_list("worker_id", flat=True)

    def take() -> bool:
        Lease.objects.filter(name=LEADER).update(holder=holder, expires_at=from_now(timedelta(seconds=1)))
        return list(leaders.all()) == [holder]

    wait_until(take, timeout=PATIENCE, message="another leader")


@FIRST_BEHIND
def test_jobs_of_a_killed_host_are_rescued_by_a_wrong_leader_when_its_lease_has_ended_and_not_before(
    wrong: Callable[..., Command], start: Start, ledger: Ledger
) -> None:
    doomed = start("--heartbeat-interval=0.4", "--heartbeat-timeout=2")
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    wrong()
    # It has been renewed a moment ago.
    os.killpg(doomed.pid, signal.SIGKILL)
    expires_in = Worker.objects.filter(supervisor__gt="", pid=ledger.entries("begin")[0].pid)
    left = expires_in.values_list(F("expires_at") - Now(), flat=True).get().total_seconds()
    since = time.monotonic()

    wait_until(lambda: ledger.count("begin") == 2, timeout=PATIENCE, message="the rescue")

    assert max(left, 0) <= ledger.entries("begin")[1].at - since + 0.05 < 2 + 5
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    assert outcomes_of(job) == [AttemptOutcome.CRASHED]


@pytest.mark.long
def test_jobs_of_a_killed_wrong_host_are_rescued_when_its_lease_has_ended(
    wrong: Callable[..., Command], start: Start, ledger: Ledger
) -> None:
    doomed = wrong()
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    start()

    os.killpg(doomed.pid, signal.SIGKILL)

    since = time.monotonic()
    wait_until(lambda: ledger.count("begin") == 2, timeout=PATIENCE, message="the rescue")
    assert ledger.entries("begin")[1].at - since < 1 + 5
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)


def _finished(seconds_ago: int) -> int:
    job = claimed()
    write(outcome(job, "succeed"))
    Job.objects.filter(pk=job.id).update(queue_name="kept", finished_at=from_now(timedelta(seconds=-seconds_ago)))
    return job.id


def _kept() -> list[int]:
    return list(Job.objects.order_by("pk").values_list("pk", flat=True))


def test_a_wrong_leader_deletes_what_is_too_old_and_nothing_else(wrong: Callable[..., Command]) -> None:
    Queue.objects.declare("kept", keep_succeeded=timedelta(minutes=5))
    start_worker()
    young, old = _finished(60), _finished(360)

    wrong()

    # Both are looked at in one pass.
    wait_until(lambda: old not in _kept(), message="the pruning")
    assert _kept() == [young]


def test_prunejobs_on_a_wrong_host_deletes_what_is_too_old_and_nothing_else(
    project_env: dict[str, str], env: dict[str, str], tmp_path: Path
) -> None:
    start_worker()
    young, _ = _finished(60), _finished(360)

    command = Command(["prunejobs", "--older-than", "5m"], project_env | env, tmp_path / "prunejobs.log")

    assert command.wait() == 0, command.output()
    assert _kept() == [young]
