"""What the exchange waits on: a wake-up, a hint from the database, or the clock."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from django.db import connection

from django_jobs import notifications
from django_jobs.worker import wakeup as wakeup_module
from django_jobs.worker.wakeup import Wakeup

from . import tasks
from .clocks import StillClock
from .conftest import wait_until

TIMEOUT = 30.0

pytestmark = pytest.mark.django_db(transaction=True)
on_postgresql = pytest.mark.skipif(not connection.features.has_select_for_update, reason="PostgreSQL only")


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    made = Wakeup(listens=True)
    yield made
    made.close()


def seconds_of(wakeup: Wakeup, seconds: float) -> float:
    """Wait, and return how long it took."""
    began = time.monotonic()
    wakeup.wait(seconds)
    return time.monotonic() - began


def test_a_wait_ends_with_its_time(wakeup: Wakeup) -> None:
    wakeup.wait(0)

    assert 0.05 <= seconds_of(wakeup, 0.05) < TIMEOUT


def test_a_wake_up_ends_a_wait(wakeup: Wakeup) -> None:
    wakeup.wait(0)
    waker = threading.Thread(target=lambda: [wait_until(lambda: wakeup._is_waiting), wakeup.wake()])
    waker.start()

    took = seconds_of(wakeup, TIMEOUT)

    waker.join()
    assert took < TIMEOUT


def test_a_wake_up_before_a_wait_ends_it_at_once(wakeup: Wakeup) -> None:
    wakeup.wait(0)
    wakeup.wake()

    assert seconds_of(wakeup, TIMEOUT) < TIMEOUT


def test_wake_ups_do_not_pile_up(wakeup: Wakeup) -> None:
    wakeup.wait(0)
    for _ in range(100_000):
        wakeup.wake()
    wakeup.wait(0)

    assert seconds_of(wakeup, 0.05) >= 0.05


def test_no_wake_up_is_missed_whenever_it_comes(wakeup: Wakeup) -> None:
    wakeup.wait(0)
    rounds = 500
    done = threading.Semaphore(0)

    def wake_each_time() -> None:
        for _ in range(rounds):
            wakeup.wake()
            done.acquire(timeout=TIMEOUT)

    waker = threading.Thread(target=wake_each_time)
    waker.start()

    longest = 0.0
    for _ in range(rounds):
        longest = max(longest, seconds_of(wakeup, TIMEOUT))
        done.release()

    waker.join()
    assert longest < TIMEOUT


def test_a_wake_up_after_the_end_does_nothing() -> None:
    wakeup = Wakeup(listens=False)
    wakeup.wait(0)
    wakeup.close()

    wakeup.wake()


def test_a_process_with_more_than_a_thousand_open_files_can_wait() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    files = [os.dup(0) for _ in range(1100)]
    wakeup = Wakeup(listens=True)

    took = [seconds_of(wakeup, 0), seconds_of(wakeup, 0)]

    wakeup.close()
    for number in files:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert max(took) < TIMEOUT


def test_what_was_never_waited_on_leaves_no_file_open() -> None:
    before = psutil.Process().num_fds()

    kept = [Wakeup(listens=True) for _ in range(100)]

    # Others may open or close a few meanwhile: a thread that ends, or the garbage collection.
    assert psutil.Process().num_fds() < before + len(kept)


# Hints


@on_postgresql
def test_a_hint_ends_a_wait_and_is_returned(wakeup: Wakeup) -> None:
    wakeup.wait(0)
    tasks.noop.enqueue()

    heard = wakeup.wait(TIMEOUT)

    assert heard == {"ready default"}


@on_postgresql
def test_a_wait_before_the_first_hint_looks_once_more(wakeup: Wakeup) -> None:
    # What was announced before the listener was there.
    tasks.noop.enqueue()

    assert seconds_of(wakeup, TIMEOUT) < TIMEOUT


def test_without_notifications_nothing_is_heard() -> None:
    wakeup = Wakeup(listens=False)
    tasks.noop.enqueue()

    heard = wakeup.wait(0.01)

    wakeup.close()
    assert heard == set()


def test_a_database_that_cannot_notify_is_not_asked_again(wakeup: Wakeup, settings: object) -> None:
    settings.DJANGO_JOBS = {"NOTIFY": False}  # type: ignore[attr-defined]

    heard = [wakeup.wait(0), wakeup.wait(0)]

    assert heard == [set(), set()]
    assert wakeup._listener is None


@on_postgresql
def test_a_listener_that_is_cut_off_is_replaced_after_a_while(
    wakeup: Wakeup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = StillClock(monkeypatch, wakeup_module)
    wakeup.wait(0)
    _end_listeners()
    wait_until(lambda: wakeup.wait(0.01) == set() and wakeup._listener is None)
    clock.advance(6)
    wakeup.wait(0)
    notifications.hint(notifications.READY, "mail")

    heard = wakeup.wait(TIMEOUT)

    assert heard == {"ready mail"}
    assert "No notifications for now, polling goes on" in caplog.text


@on_postgresql
def test_a_server_that_lets_nobody_listen_leaves_no_connection_behind(
    wakeup: Wakeup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As a pooler in between may answer.
    monkeypatch.setattr(notifications, "CHANNEL", "no channel at all")

    wakeup.wait(0)

    assert "No notifications for now, polling goes on" in caplog.text
    wait_until(lambda: _listeners() == 0)


def _listeners() -> int:
    return int(
        _value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
    )


def _end_listeners() -> None:
    _value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    wait_until(lambda: _listeners() == 0)


def _value(statement: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.fetchone()[0])
