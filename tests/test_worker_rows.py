"""The rows of worker processes, and their leases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_jobs.exceptions import InvalidOption
from django_jobs.models import Worker
from django_jobs.models.rescue import rescue_lost
from django_jobs.states import JobState, WorkerState

from .rivals import TIMEOUT, Rival, wait_until_blocked
from .rows import HOUR, LEASE, claimed, end_lease, row, start_worker

pytestmark = pytest.mark.django_db


def test_a_process_that_starts_has_a_lease_by_the_databases_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = timezone.now() + timedelta(days=365)
    monkeypatch.setattr(timezone, "now", lambda: wrong)

    start_worker("w1")

    worker = Worker.objects.get()
    assert worker.expires_at - worker.last_seen == LEASE
    assert worker.expires_at < wrong
    assert (worker.state, worker.is_leader) == (WorkerState.STARTING, False)
    assert Worker.objects.leased().get() == worker


def test_a_worker_id_in_use_is_refused_with_who_uses_it() -> None:
    start_worker("w1", hostname="here", pid=1)

    with pytest.raises(InvalidOption, match="The worker id 'w1' is in use by process 1 on here."):
        start_worker("w1", hostname="there", pid=1)


@pytest.mark.parametrize("state", [WorkerState.STOPPED, WorkerState.LOST])
def test_the_id_of_a_process_that_has_ended_can_be_used_again(state: WorkerState) -> None:
    start_worker("w1", hostname="here")
    Worker.objects.update(state=state, is_leader=True)

    start_worker("w1", hostname="there")

    worker = Worker.objects.get()
    assert (worker.hostname, worker.state, worker.is_leader) == ("there", WorkerState.STARTING, False)


def test_the_id_of_a_process_whose_lease_has_ended_can_be_used_again() -> None:
    start_worker("w1", hostname="here")
    end_lease("w1")

    start_worker("w1", hostname="there")

    assert Worker.objects.get().hostname == "there"


@pytest.mark.parametrize("hostname", ["here", "there"])
def test_a_process_that_takes_over_an_id_does_not_take_over_its_jobs(hostname: str) -> None:
    start_worker("w1", hostname="here")
    job = claimed(max_attempts=2)
    end_lease("w1")

    start_worker("w1", hostname=hostname)

    assert (row(job.id).state, row(job.id).attempt, row(job.id).worker_id) == (JobState.READY, 1, "")
    assert Worker.objects.leased().get().worker_id == "w1"


def test_leases_are_extended_in_one_update() -> None:
    ids = [start_worker(f"w{number}", timedelta(seconds=1)) for number in range(5)]
    before = Worker.objects.get(worker_id="w0").expires_at

    with CaptureQueriesContext(connection) as captured:
        gone = Worker.objects.extend(ids, LEASE)

    assert gone == set()
    assert len(captured) == 1
    assert Worker.objects.get(worker_id="w0").expires_at > before


def test_a_lease_that_has_ended_unnoticed_is_extended() -> None:
    """Nobody took its jobs, so it holds them still."""
    start_worker("w1")
    end_lease("w1")

    assert Worker.objects.extend(["w1"], LEASE) == set()
    assert Worker.objects.leased().exists()


def test_a_lease_that_was_taken_away_is_gone_for_good() -> None:
    start_worker("w1")
    start_worker("w2")
    rescue_lost(["w1"])

    gone = Worker.objects.extend(["w1", "w2", "w3"], LEASE)

    assert gone == {"w1", "w3"}
    assert Worker.objects.get(worker_id="w1").state == WorkerState.LOST


def test_a_live_process_reports_and_a_lost_one_learns_that_it_is() -> None:
    start_worker("w1")
    first = Worker.objects.report("w1", state=WorkerState.RUNNING, processed=5)
    rescue_lost(["w1"])
    second = Worker.objects.report("w1", processed=6)

    assert (first, second) == (True, False)
    assert (Worker.objects.get().processed, Worker.objects.get().state) == (5, WorkerState.LOST)


def test_a_process_that_stops_gives_its_lease_back() -> None:
    start_worker("w1")
    Worker.objects.report("w1", active=3, is_leader=True)

    stopped = Worker.objects.mark_stopped("w1")

    worker = Worker.objects.get()
    assert stopped
    assert (worker.state, worker.active, worker.is_leader) == (WorkerState.STOPPED, 0, False)
    assert not Worker.objects.leased().exists()
    assert Worker.objects.mark_stopped("w1") is False


def test_processes_that_ended_long_ago_are_forgotten_and_live_ones_never() -> None:
    for worker_id, state in (("old", "stopped"), ("lost", "lost"), ("new", "stopped"), ("silent", "running")):
        start_worker(worker_id)
        Worker.objects.filter(worker_id=worker_id).update(state=state)
    Worker.objects.exclude(worker_id="new").update(last_seen=timezone.now() - 2 * HOUR)

    forgotten = Worker.objects.forget(HOUR)

    assert forgotten == 2
    assert set(Worker.objects.values_list("worker_id", flat=True)) == {"new", "silent"}


@pytest.mark.django_db(transaction=True)
def test_of_two_processes_that_start_under_one_id_at_once_one_is_refused() -> None:
    with Rival() as rival, Rival() as second:
        rival.begin()
        rival.run(lambda: start_worker("w1", hostname="here"))
        starting = second.start(lambda: start_worker("w1", hostname="there"))
        wait_until_blocked()
        rival.commit()
        with pytest.raises(InvalidOption, match="is in use"):
            starting.result(TIMEOUT)

    assert Worker.objects.get().hostname == "here"
