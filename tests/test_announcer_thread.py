"""The announcer's thread, and receivers that raise or leave something behind."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.dispatch import Signal

from django_jobs import signals
from django_jobs.compat import PACKAGE, task_finished, task_started
from django_jobs.models import Queue
from django_jobs.outcomes import ClaimedJob, Outcome
from django_jobs.states import JobState
from django_jobs.worker import announcer as announcer_module
from django_jobs.worker.announcer import Announcer, announce

from .attempts import claimed_job, run
from .conftest import wait_until
from .rows import row, write
from .worker_tasks import do, do_once, doing, raising, returning

pytestmark = pytest.mark.django_db

JOB_SIGNALS = {
    "job_started": signals.job_started,
    "job_succeeded": signals.job_succeeded,
    "job_failed": signals.job_failed,
    "job_retrying": signals.job_retrying,
    "job_snoozed": signals.job_snoozed,
    "job_cancelled": signals.job_cancelled,
    "task_started": task_started,
    "task_finished": task_finished,
}


class Receiver:
    """Keeps what it is told, and the state of the row at that moment."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any, dict[str, Any]]] = []
        self.states: list[JobState] = []
        self._connected: list[tuple[Signal, Callable[..., None]]] = []

    def listen_to(self, name: str, signal: Signal) -> None:
        def receive(sender: Any, **told: Any) -> None:
            told.pop("signal")
            self.told.append((name, sender, told))
            pk = told["job_id"] if "job_id" in told else told["task_result"].id
            self.states.append(row(pk).state)

        signal.connect(receive)
        self._connected.append((signal, receive))

    def leave(self) -> None:
        for signal, receive in self._connected:
            signal.disconnect(receive)

    def names(self) -> list[str]:
        return [name for name, _, _ in self.told]

    def of(self, name: str) -> dict[str, Any]:
        [told] = [told for heard, _, told in self.told if heard == name]
        return told


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    for name, signal in JOB_SIGNALS.items():
        made.listen_to(name, signal)
    yield made
    made.leave()


@pytest.fixture
def connect() -> Iterator[Callable[[Signal, Callable[..., Any]], None]]:
    connected: list[tuple[Signal, Callable[..., Any]]] = []

    def connect(signal: Signal, receive: Callable[..., Any]) -> None:
        signal.connect(receive)
        connected.append((signal, receive))

    yield connect
    for signal, receive in connected:
        signal.disconnect(receive)


def tell(job: ClaimedJob) -> Outcome:
    """Run a job, write its outcome and announce it, as a worker does."""
    [outcome] = write(run(job)).done
    announce(outcome)
    return outcome


# Receivers that raise


@pytest.mark.parametrize("error", [ValueError("bad receiver"), SystemExit("bad receiver")])
def test_a_receiver_that_raises_is_logged_and_harms_nothing(
    connect: Any, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def receive(**told: Any) -> None:
        raise error

    for signal in JOB_SIGNALS.values():
        connect(signal, receive)
    job = claimed_job(do, returning("done"))

    tell(job)

    assert row(job.id).state == JobState.SUCCEEDED
    assert caplog.text.count("bad receiver") >= 4


def test_a_receiver_that_raises_does_not_keep_others_from_hearing(connect: Any, receiver: Receiver) -> None:
    def receive(**told: Any) -> None:
        raise ValueError

    connect(signals.job_succeeded, receive)

    tell(claimed_job(do, returning(None)))

    assert "job_succeeded" in receiver.names()


# The thread


@pytest.fixture
def announcer() -> Iterator[Announcer]:
    deaths: list[object] = []
    made = Announcer(deaths.append)
    made.start()
    yield made
    assert made.stop(30.0)
    assert deaths == []


@pytest.mark.django_db(transaction=True)
def test_receivers_are_called_in_a_thread_of_their_own_in_the_order_of_the_outcomes(
    connect: Any, announcer: Announcer
) -> None:
    told: list[tuple[int, str]] = []
    connect(signals.job_succeeded, lambda job_id, **rest: told.append((job_id, threading.current_thread().name)))
    outcomes = [run(claimed_job(do, returning(None))) for _ in range(5)]

    announcer.tell(write(*outcomes).done)

    wait_until(lambda: len(told) == 5)
    assert told == [(outcome.job.id, "django_jobs announcer") for outcome in outcomes]


@pytest.mark.django_db(transaction=True)
def test_what_a_receiver_leaves_behind_in_the_database_does_not_meet_the_next(
    connect: Any, announcer: Announcer
) -> None:
    seen: list[tuple[bool, int]] = []

    def receive(**told: Any) -> None:
        seen.append((connection.in_atomic_block, Queue.objects.count()))
        transaction.atomic().__enter__()
        Queue.objects.create(name=f"never committed {len(seen)}")

    connect(signals.job_succeeded, receive)
    outcomes = [run(claimed_job(do, returning(None))) for _ in range(3)]

    announcer.tell(write(*outcomes).done)

    wait_until(lambda: len(seen) == 3)
    assert seen == [(False, 0)] * 3


@pytest.mark.django_db(transaction=True)
def test_what_has_not_been_told_at_the_end_is_told_then(connect: Any) -> None:
    told: list[int] = []
    connect(signals.job_succeeded, lambda job_id, **rest: told.append(job_id))
    announcer = Announcer()
    announcer.tell(write(run(claimed_job(do, returning(None)))).done)

    announcer.start()
    announcer.stop(30.0)

    assert len(told) == 1


def test_an_announcer_with_too_much_to_tell_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer_module, "MOST_WAITING", 2)
    announcer = Announcer()
    outcome = run(claimed_job(do, raising(ValueError("bad"))))

    announcer.tell([outcome] * 2)
    before = announcer.is_behind
    announcer.tell([outcome])

    assert (before, announcer.is_behind) == (False, True)


def test_a_success_is_kept_only_for_somebody_who_hears_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger=PACKAGE)
    announcer = Announcer()
    outcome = run(claimed_job(do, returning(None)))
    kept = []

    for level in (logging.WARNING, logging.DEBUG):
        caplog.set_level(level, logger="django_jobs")
        announcer.tell([outcome])
        kept.append(announcer._next() is outcome)

    assert kept == [False, True]


def test_what_a_failed_job_held_is_let_go_of_once_its_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest keeps the records of a log, and these their exceptions.
    monkeypatch.setattr(logging.getLogger(PACKAGE), "disabled", True)

    class Large:
        """What takes much memory."""

    held: list[weakref.ref[Large]] = []

    def body() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("no")

    job = claimed_job(do_once, doing(body))
    gc.disable()
    try:
        # No name here for the outcome: this frame is one of those that its exception holds.
        announce(run(job))

        assert held[0]() is None
    finally:
        gc.enable()
