"""Who leads, what the leader does and when, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from django_jobs import signals
from django_jobs.models import Job, Lease
from django_jobs.models.database import from_now
from django_jobs.models.lease import LEADER
from django_jobs.states import JobState
from django_jobs.worker import leader as leader_module
from django_jobs.worker.duties import Duty
from django_jobs.worker.leader import Leader, PluginDuties

from . import tasks
from .clocks import StillClock
from .rows import claimed, end_lease, row, start_worker, state_of

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
    return Leader(holder, duties, **{"lease": LEASE, "poll_interval": 1.0} | options)


def end_leadership() -> None:
    """Let the lease of the leader end, as if it had been silent for long."""
    Lease.objects.filter(name=LEADER).update(expires_at=from_now(timedelta(seconds=-1)))


def scheduled(**delay: float) -> Job:
    return row(tasks.noop.using(run_after=timedelta(**delay)).enqueue().id)


# Staging


def test_the_leader_makes_due_jobs_ready_and_others_not() -> None:
    due, later = scheduled(seconds=-1), scheduled(hours=1)

    leader().run_once()

    assert (state_of(due), state_of(later)) == (JobState.READY, JobState.SCHEDULED)


def test_the_leader_comes_back_when_the_next_job_is_due() -> None:
    scheduled(hours=2)
    scheduled(hours=1)
    mine = leader(poll_interval=36_000.0)
    # Else it comes back much sooner, and a job that is due sooner still may be due by then on a busy machine.
    mine._elect_every = 36_000.0

    assert 0 < mine.run_once() <= 3600


def test_the_leader_comes_back_after_the_poll_interval_where_nothing_is_due_soon() -> None:
    scheduled(hours=1)

    assert leader().run_once() == 1.0


def test_however_many_jobs_are_due_all_are_made_ready_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_module, "STAGE_BATCH", 2)
    jobs = [scheduled(seconds=-1) for _ in range(5)]

    leader().run_once()

    assert {state_of(job) for job in jobs} == {JobState.READY}


# Duties


def test_each_duty_is_done_at_once_and_then_in_its_own_time(clock: StillClock) -> None:
    done = Done()
    mine = leader("s1", done.duty("often", 5.0), done.duty("seldom", 60.0))

    mine.run_once()
    for seconds in (4.9, 0.2, 5.1, 50.0):
        done.names.append("|")
        clock.advance(seconds)
        mine.run_once()

    assert " ".join(done.names) == "often seldom | | often | often | often seldom"


@pytest.mark.parametrize(("seconds", "wait"), [(0.25, 0.25), (60.0, 0.5), (-5.0, 0.0)])
def test_a_duty_may_say_that_it_has_something_to_do_sooner(seconds: float, wait: float) -> None:
    mine = leader("s1", Duty("fire", 0.5, lambda: timedelta(seconds=seconds)))

    assert mine.run_once() == pytest.approx(wait)


def test_the_leader_comes_back_when_the_next_duty_is_due() -> None:
    mine = leader("s1", Done().duty("often", 0.25))

    assert mine.run_once() == 0.25


@pytest.mark.django_db(transaction=True)
def test_a_duty_that_raises_does_not_keep_others_from_being_done(
    caplog: pytest.LogCaptureFixture, clock: StillClock
) -> None:
    done = Done()
    mine = leader("s1", done.duty("bad", 5.0, ValueError("no")), done.duty("good", 5.0))
    job = scheduled(seconds=-1)

    mine.run_once()
    clock.advance(2.1)
    mine.run_once()

    assert done.names == ["bad", "good", "bad"]
    assert state_of(job) == JobState.READY
    assert "The duty 'bad' loop failed and goes on: ValueError: no" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_after_an_error_of_its_own_the_leader_gives_everybody_a_moment(clock: StillClock) -> None:
    done = Done()
    mine = leader("s1", done.duty("rescue"))
    job = scheduled(seconds=-1)

    mine.recover()
    mine.run_once()
    before = done.names[:]
    clock.advance(3.1)
    mine.run_once()

    assert state_of(job) == JobState.READY
    assert (before, done.names) == ([], ["rescue"])


def test_a_leader_whose_own_leases_have_ended_rescues_nobody() -> None:
    done, beats = Done(), [False, True]
    mine = leader("s1", done.duty("rescue"), is_beating=lambda: beats.pop(0))

    mine.run_once()
    before = done.names[:]
    mine.run_once()

    assert (before, done.names) == ([], ["rescue"])


# Plugins


def test_duties_of_plugins_are_done_by_the_leader_only() -> None:
    done, leads = Done(), [False, True]
    plugins = PluginDuties([done.duty("plugin", 60.0)], lambda: leads.pop(0))

    pauses = [plugins.run_once()]
    before = done.names[:]
    pauses.append(plugins.run_once())

    assert (before, done.names) == ([], ["plugin"])
    assert pauses == [1.0, pytest.approx(60.0, abs=1)]


def test_an_ended_lease_of_a_worker_is_no_concern_of_one_who_does_not_lead() -> None:
    leader("s1").run_once()
    second = leader("s2")
    start_worker("w1")
    job = claimed(worker_id="w1")
    end_lease("w1")

    second.run_once()

    assert state_of(job) == JobState.RUNNING
