"""The loop that watches the clock. No test here may ask the database: a timeout works while that is away."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from django_jobs.worker import deadlines as module
from django_jobs.worker.deadlines import Deadlines

from .clocks import StillClock

TIMEOUT = 30.0


class Noting:
    """Notes that its time is over."""

    def __init__(self) -> None:
        self.is_over = threading.Event()

    def expire(self) -> None:
        self.is_over.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return StillClock(monkeypatch, module)


@pytest.fixture
def running() -> Iterator[Deadlines]:
    deadlines = Deadlines()
    deadlines.start()
    yield deadlines
    deadlines.stop(TIMEOUT)


def test_what_is_overdue_hears_of_it_once_and_the_others_do_not(clock: StillClock) -> None:
    deadlines, first, second = Deadlines(), Noting(), Noting()
    deadlines.watch(first, clock.monotonic() + 10)
    deadlines.watch(second, clock.monotonic() + 30)
    clock.advance(10)

    pause = deadlines.run_once()

    assert (first.is_over.is_set(), second.is_over.is_set(), pause) == (True, False, 20)
    first.is_over.clear()
    deadlines.run_once()
    assert not first.is_over.is_set()


def test_what_has_ended_hears_nothing(clock: StillClock) -> None:
    deadlines, ended = Deadlines(), Noting()
    deadlines.watch(ended, clock.monotonic() + 10)
    deadlines.forget(ended)
    clock.advance(10)

    deadlines.run_once()

    assert not ended.is_over.is_set()


@pytest.mark.parametrize("seconds", [None, 3600.0, 1e300, math.inf])
def test_a_deadline_that_is_far_away_is_waited_for_in_parts(seconds: float | None, clock: StillClock) -> None:
    deadlines = Deadlines()
    if seconds is not None:
        deadlines.watch(Noting(), clock.monotonic() + seconds)

    assert deadlines.run_once() == 60


def test_a_deadline_that_comes_before_the_one_that_is_waited_for_is_met(running: Deadlines) -> None:
    far, near = Noting(), Noting()
    running.watch(far, time.monotonic() + 3600)

    running.watch(near, time.monotonic() + 0.05)

    assert near.is_over.wait(TIMEOUT)
    assert not far.is_over.is_set()


def test_a_deadline_that_comes_while_others_are_looked_at_is_met(running: Deadlines) -> None:
    late = Noting()

    class Adding:
        def expire(self) -> None:
            # In the midst of a pass, whose own wait may be long.
            running.watch(late, time.monotonic() + 0.05)

    running.watch(Adding(), time.monotonic())

    assert late.is_over.wait(TIMEOUT)


def test_a_deadline_that_comes_when_the_next_one_has_just_been_found_wakes_the_loop(clock: StillClock) -> None:
    deadlines, late = Deadlines(), Noting()

    class Meddling(dict[Any, float]):
        copies = 0

        def copy(self) -> dict[Any, float]:
            found = dict(self)
            self.copies += 1
            if self.copies == 2:
                deadlines.watch(late, clock.monotonic() + 5)
            return found

    deadlines._deadlines = Meddling()
    deadlines._next = clock.monotonic()

    pause = deadlines.run_once()

    assert (pause, deadlines._woken.is_set()) == (60, True)


def test_one_that_raises_keeps_nobody_else_from_hearing_of_its_time() -> None:
    class Raising:
        def expire(self) -> None:
            raise ValueError("as the test wants it")

    deadlines, other = Deadlines(), Noting()
    for window in (Raising(), other, Raising()):
        deadlines.watch(window, time.monotonic())

    while deadlines.attempt() < 1 and not other.is_over.is_set():
        pass

    assert other.is_over.is_set()
