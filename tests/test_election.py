"""Who leads, and who takes the jobs of dead workers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection

from django_jobs import signals
from django_jobs.models import Job, Lease, Worker
from django_jobs.models.database import from_now
from django_jobs.models.lease import LEADER
from django_jobs.states import JobState, WorkerState
from django_jobs.worker import leader as leader_module
from django_jobs.worker.duties import Duty
from django_jobs.worker.leader import Leader

from . import tasks
from .clocks import StillClock
from .rivals import Rival
from .rows import claimed, row, start_worker, state_of

pytestmark = pytest.mark.django_db

LEASE = 30.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return StillClock(monkeypatch, leader_module)


@pytest.fixture
def heard() -> Iterator[list[tuple[str, Any, str]]]:
    """What receivers hear of gained and lost leadership."""
    heard: list[tuple[str, Any, str]] = []

    def gained(sender: Any, worker_id: str, **rest: Any) -> None:
        heard.append(("gained", sender, worker_id))

    def lost(sender: Any, worker_id: str, **rest: Any) -> None:
        heard.append(("lost", sender, worker_id))

    signals.leader_gained.connect(gained)
    signals.leader_lost.connect(lost)
    yield heard
    signals.leader_gained.disconnect(gained)
    signals.leader_lost.disconnect(lost)


class Done:
    """Duties that keep count."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def duty(self, name: str, seconds: float = 60.0, error: Exception | None = None) -> Duty:
        def do() -> None:
            self.names.append(name)
            if error is not None:
                raise error

        return Duty(name, seconds, do)


def leader(holder: str = "s1", *duties: Duty, **options: Any) -> Leader:
    start_worker(holder)
    return Leader(holder, duties, lease=LEASE, poll_interval=1.0, **options)


def end_leadership() -> None:
    """Let the lease of the leader end, as if it had been silent for long."""
    Lease.objects.filter(name=LEADER).update(expires_at=from_now(timedelta(seconds=-1)))


def scheduled(**delay: float) -> Job:
    return row(tasks.noop.using(run_after=timedelta(**delay)).enqueue().id)


# Election


def test_the_first_who_asks_leads_and_the_second_does_not(heard: list[Any]) -> None:
    first, second = leader("s1"), leader("s2")

    first.run_once()
    second.run_once()

    assert (first.is_leading, second.is_leading) == (True, False)
    assert heard == [("gained", Lease, "s1")]
    assert list(Worker.objects.filter(is_leader=True).values_list("worker_id", flat=True)) == ["s1"]


def test_another_leads_when_the_leader_has_been_silent_and_that_one_finds_out(
    heard: list[Any], clock: StillClock
) -> None:
    first, second = leader("s1"), leader("s2")
    first.run_once()
    end_leadership()

    second.run_once()
    clock.advance(2.1)
    first.run_once()

    assert (first.is_leading, second.is_leading) == (False, True)
    assert heard == [("gained", Lease, "s1"), ("gained", Lease, "s2"), ("lost", Lease, "s1")]


def test_a_leader_extends_its_lease(clock: StillClock) -> None:
    first, second = leader("s1"), leader("s2")
    first.run_once()
    end_leadership()
    clock.advance(2.1)
    first.run_once()

    second.run_once()

    assert (first.is_leading, second.is_leading) == (True, False)


@pytest.mark.django_db(transaction=True)
def test_a_leader_that_ends_makes_room_at_once(heard: list[Any]) -> None:
    first, second = leader("s1"), leader("s2")
    first.run_once()

    first.close()
    second.run_once()

    assert (first.is_leading, second.is_leading) == (False, True)
    assert heard == [("gained", Lease, "s1"), ("lost", Lease, "s1"), ("gained", Lease, "s2")]


def test_whoever_does_not_lead_asks_again_within_two_seconds() -> None:
    first, second = leader("s1"), leader("s2")
    first.run_once()

    assert second.run_once() == 2.0


def test_whoever_does_not_lead_does_nothing() -> None:
    done = Done()
    first, second = leader("s1"), leader("s2", done.duty("duty"))
    first.run_once()
    job = scheduled(seconds=-1)

    second.run_once()

    assert done.names == []
    assert state_of(job) == JobState.SCHEDULED


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not connection.features.has_select_for_update, reason="rows cannot be locked")
def test_a_leader_that_could_not_write_its_row_is_told_of_with_the_next_election(
    heard: list[Any], clock: StillClock
) -> None:
    mine = leader()
    with Rival() as rival, connection.cursor() as cursor:
        rival.begin()
        rival.run(lambda: list(Worker.objects.select_for_update()))
        cursor.execute("SET lock_timeout = '50ms'")
        with pytest.raises(OperationalError):
            mine.run_once()
        rival.commit()
        cursor.execute("RESET lock_timeout")
    before = heard[:]
    clock.advance(2.1)

    mine.run_once()

    assert (before, heard) == ([], [("gained", Lease, "s1")])
    assert Worker.objects.get().is_leader


# Rescue of a host's own workers


def test_the_jobs_of_a_dead_worker_are_taken_at_once_also_by_one_who_does_not_lead() -> None:
    leader("s1").run_once()
    second = leader("s2")
    start_worker("w1")
    job = claimed(worker_id="w1")
    second.rescue("w1", "Its process was killed by SIGKILL.")

    second.run_once()

    assert state_of(job) == JobState.READY
    assert Worker.objects.get(worker_id="w1").state == WorkerState.LOST
    assert "Its process was killed by SIGKILL." in row(job.id).attempts.get().message


@pytest.mark.django_db(transaction=True)
def test_what_is_left_to_rescue_at_the_end_is_rescued_then() -> None:
    ending = leader()
    start_worker("w1")
    job = claimed(worker_id="w1")
    ending.rescue("w1", "It is dead.")

    ending.close()

    assert state_of(job) == JobState.READY


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not connection.features.has_select_for_update, reason="rows cannot be locked")
def test_a_dead_worker_whose_row_is_locked_is_rescued_with_the_next_pass() -> None:
    mine = leader()
    start_worker("w1")
    job = claimed(worker_id="w1")
    mine.rescue("w1", "It is dead.")
    with Rival() as rival:
        rival.begin()
        rival.run(lambda: list(Worker.objects.filter(worker_id="w1").select_for_update()))
        mine.run_once()
        before = state_of(job)
        rival.commit()

    mine.run_once()

    assert (before, state_of(job)) == (JobState.RUNNING, JobState.READY)
