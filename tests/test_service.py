"""The contract of every loop: pass, wait, wake, survive errors, end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest
from django.db import OperationalError, connection

from django_jobs.models import Queue as QueueRow
from django_jobs.worker import service as service_module
from django_jobs.worker.service import Service

from .clocks import StillClock
from .conftest import wait_until

TIMEOUT = 30.0


class Loop(Service):
    """Does what the test says, pass by pass, and waits for long in between."""

    name = "test"

    def __init__(self, *steps: Callable[[], Any]) -> None:
        self.deaths: Queue[Service] = Queue()
        super().__init__(self.deaths.put)
        self._steps = list(steps)
        self.passes = 0
        self.closed = threading.Event()

    def run_once(self) -> float:
        self.passes += 1
        if self._steps:
            self._steps.pop(0)()
        return 3600.0

    def close(self) -> None:
        super().close()
        self.closed.set()


def fail() -> None:
    raise ValueError("this pass failed")


def nothing() -> None:
    """Do nothing."""


@pytest.fixture
def start() -> Iterator[Callable[..., Loop]]:
    started: list[Loop] = []

    def start(*steps: Callable[[], Any]) -> Loop:
        loop = Loop(*steps)
        started.append(loop)
        loop.start()
        return loop

    yield start
    for loop in started:
        assert loop.stop(TIMEOUT)


def test_a_loop_makes_its_first_pass_at_once_and_then_waits(start: Callable[..., Loop]) -> None:
    loop = start()

    wait_until(lambda: loop.passes)
    assert (loop.passes, loop.is_alive) == (1, True)


def test_a_loop_that_is_woken_makes_its_next_pass(start: Callable[..., Loop]) -> None:
    loop = start()
    wait_until(lambda: loop.passes == 1)

    loop.wake()

    wait_until(lambda: loop.passes == 2)


def test_waking_during_a_pass_brings_another_pass(start: Callable[..., Loop]) -> None:
    inside, go_on = threading.Event(), threading.Event()
    loop = start(lambda: inside.set() or go_on.wait(TIMEOUT))
    assert inside.wait(TIMEOUT)

    loop.wake()
    go_on.set()

    wait_until(lambda: loop.passes == 2)


def test_a_pass_that_raises_is_logged_and_the_loop_goes_on(
    start: Callable[..., Loop], caplog: pytest.LogCaptureFixture
) -> None:
    loop = start(fail)

    wait_until(lambda: loop.passes == 2)
    assert "The test loop failed and goes on: ValueError: this pass failed" in caplog.text
    assert loop.deaths.empty()


def fail_otherwise() -> None:
    raise ValueError("this pass failed too")


def test_only_the_first_of_several_failures_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop(fail, fail_otherwise, fail)

    for _ in range(3):
        loop.attempt()

    assert [bool(record.exc_info) for record in caplog.records] == [True, False]


def test_a_failure_that_goes_on_is_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = StillClock(monkeypatch, service_module)
    loop = Loop(*[fail] * 20)

    logged = []
    for _ in range(20):
        loop.attempt()
        logged.append(len(caplog.records))
        clock.advance(10)

    assert logged == [1] * 6 + [2] * 6 + [3] * 6 + [4] * 2


def test_a_loop_that_works_again_says_so(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop(fail, fail, nothing, nothing, fail, fail, nothing, fail_otherwise)

    for _ in range(8):
        loop.attempt()

    assert [record.getMessage() for record in caplog.records] == [
        "The test loop failed and goes on: ValueError: this pass failed",
        "The test loop works again, after 2 failures.",
        "The test loop failed and goes on: ValueError: this pass failed too",
    ]


def test_the_pause_after_failures_grows_to_two_seconds() -> None:
    loop = Loop(*[fail] * 20)

    pauses = [loop.attempt() for _ in range(20)]

    assert 0.1 <= pauses[0] <= 0.2
    assert all(pause <= 2.0 for pause in pauses)
    assert all(pause >= 1.0 for pause in pauses[5:])


def test_a_pass_that_succeeds_ends_the_failures() -> None:
    loop = Loop(fail)
    loop.attempt()
    failed = loop.has_failed

    pause = loop.attempt()

    assert (failed, loop.has_failed, pause) == (True, False, 3600.0)
    assert loop.health()["last_error"] == ""


def test_the_health_of_a_loop_tells_its_last_error_as_any_database_can_store_it() -> None:
    def fail_strangely() -> None:
        raise ValueError("nul \x00 surrogate \udc80 " + "x" * 100_000)

    loop = Loop(fail_strangely)
    loop.attempt()

    health = loop.health()

    assert health["alive"] is False
    assert health["seconds_since_pass"] < TIMEOUT
    assert health["last_error"].startswith("ValueError: nul \ufffd surrogate ? xxx")
    assert len(health["last_error"]) <= 1000


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_whose_thread_dies_says_so(start: Callable[..., Loop]) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    loop = start(die)

    assert loop.deaths.get(timeout=TIMEOUT) is loop
    wait_until(lambda: not loop.is_alive)


def test_a_loop_ends_after_its_pass_and_gives_back_what_it_held(start: Callable[..., Loop]) -> None:
    loop = start()
    wait_until(lambda: loop.passes)

    assert loop.stop(TIMEOUT)

    assert loop.closed.is_set()
    assert loop.deaths.empty()


def test_a_loop_that_does_not_end_in_time_is_told_by_its_stop(start: Callable[..., Loop]) -> None:
    inside, go_on = threading.Event(), threading.Event()
    loop = start(lambda: inside.set() or go_on.wait(TIMEOUT))
    assert inside.wait(TIMEOUT)

    ended = loop.stop(0.01)

    go_on.set()
    assert not ended


def test_a_loop_may_be_stopped_twice_and_without_having_been_started() -> None:
    loop = Loop()

    assert loop.stop(TIMEOUT)
    assert loop.stop(TIMEOUT)


def test_a_loop_may_stop_itself(start: Callable[..., Loop]) -> None:
    known: Queue[Loop] = Queue()
    loop = start(lambda: known.get(timeout=TIMEOUT).stop())

    known.put(loop)

    wait_until(lambda: not loop.is_alive)
    assert loop.closed.is_set()


def test_a_loop_whose_last_writes_fail_ends_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    class Unwilling(Loop):
        def close(self) -> None:
            raise OperationalError("the database is away")

    loop = Unwilling()
    loop.start()
    wait_until(lambda: loop.passes)

    assert loop.stop(TIMEOUT)

    assert "The test loop ends without its last writes: the database is away" in caplog.text
    assert loop.deaths.empty()


@pytest.mark.django_db(transaction=True)
def test_a_pass_that_raises_leaves_no_transaction_behind(start: Callable[..., Loop]) -> None:
    seen: list[tuple[bool, int]] = []

    def leave_a_transaction_open() -> None:
        connection.set_autocommit(False)
        QueueRow.objects.create(name="never committed")
        fail()

    def look() -> None:
        seen.append((connection.get_autocommit(), QueueRow.objects.count()))

    loop = start(leave_a_transaction_open, look)

    wait_until(lambda: seen)
    assert seen == [(True, 0)]
    assert loop.is_alive
