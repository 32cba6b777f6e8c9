"""One beat at a time: which leases it renews, and what it does about those that are gone."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import Error, connection, transaction
from django.test.utils import CaptureQueriesContext

from django_jobs import signals
from django_jobs.models import Worker
from django_jobs.models.rescue import rescue_lost
from django_jobs.states import WorkerState
from django_jobs.worker import heartbeat as heartbeat_module
from django_jobs.worker.heartbeat import Heartbeat

from .clocks import StillClock
from .rows import end_lease, start_worker

pytestmark = pytest.mark.django_db

INTERVAL, TIMEOUT = 10.0, 30.0


class Beats:
    """A heartbeat for these workers, and the workers that it has found gone."""

    def __init__(self, *worker_ids: str) -> None:
        self.alive = list(worker_ids)
        self.gone: list[set[str]] = []
        self.service = Heartbeat(lambda: self.alive, INTERVAL, TIMEOUT, self.gone.append)

    def beat(self) -> float:
        return self.service.run_once()


def test_a_beat_renews_the_leases_of_all_its_workers_in_one_update() -> None:
    for worker_id in ("w1", "w2"):
        start_worker(worker_id)
        end_lease(worker_id)
    beats = Beats("w1", "w2")

    with CaptureQueriesContext(connection) as captured:
        pause = beats.beat()

    assert pause == INTERVAL
    assert len(captured) == 1
    assert set(Worker.objects.leased().values_list("worker_id", flat=True)) == {"w1", "w2"}
    assert beats.gone == []


def test_a_lease_lasts_for_the_timeout_from_the_last_beat() -> None:
    start_worker("w1")

    Beats("w1").beat()

    worker = Worker.objects.get()
    assert (worker.expires_at - worker.last_seen).total_seconds() == TIMEOUT


def test_a_worker_that_its_host_no_longer_answers_for_is_not_renewed() -> None:
    for worker_id in ("alive", "dead"):
        start_worker(worker_id)
        end_lease(worker_id)

    Beats("alive").beat()

    assert Worker.objects.leased().get().worker_id == "alive"


def test_without_workers_a_beat_asks_nothing_of_the_database() -> None:
    with CaptureQueriesContext(connection) as captured:
        Beats().beat()

    assert len(captured) == 0


def test_workers_that_are_held_for_lost_are_reported_and_stay_lost() -> None:
    for worker_id in ("w1", "w2"):
        start_worker(worker_id)
    rescue_lost(["w2"])
    beats = Beats("w1", "w2", "never registered")

    beats.beat()

    assert beats.gone == [{"w2", "never registered"}]
    assert Worker.objects.get(worker_id="w2").state == WorkerState.LOST


def test_receivers_hear_the_beat_of_each_worker_that_is_not_gone() -> None:
    heard: list[str] = []

    def hear(worker_id: str, **arguments: Any) -> None:
        heard.append(worker_id)

    for worker_id in ("w1", "w2"):
        start_worker(worker_id)
    signals.worker_heartbeat.connect(hear)
    try:
        Beats("w1", "w2", "gone").beat()
    finally:
        signals.worker_heartbeat.disconnect(hear)

    assert heard == ["w1", "w2"]


def test_leases_are_held_for_live_from_the_beginning_of_the_beat_for_as_long_as_they_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = StillClock(monkeypatch, heartbeat_module)
    start_worker("w1")
    beats = Beats("w1")
    beats.beat()

    clock.advance(TIMEOUT - 1)
    before = beats.service.is_fresh
    clock.advance(1)
    after = beats.service.is_fresh
    beats.beat()

    assert (before, after, beats.service.is_fresh) == (True, False, True)


def test_a_beat_that_fails_does_not_make_leases_look_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StillClock(monkeypatch, heartbeat_module)
    start_worker("w1")
    beats = Beats("w1")
    clock.advance(TIMEOUT)

    with transaction.atomic():
        # From here on the database answers with errors.
        transaction.set_rollback(True)
        with pytest.raises(Error):
            beats.beat()

    assert not beats.service.is_fresh
