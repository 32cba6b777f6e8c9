"""Marks: where a claim begins while dead entries of the ready index cannot be taken away."""

from __future__ import annotations

import pytest
from django.db import connection  # noqa: F401 - the condition of needs_compiling reads it

from django_jobs.models import Job, Queue, marks, turn
from django_jobs.models.marks import HOLD, Marks
from tests import tasks

from .clocks import StillClock
from .own_sessions import needs_compiling
from .rows import WORKER, start_worker

SLOW = 0.5


@pytest.fixture(autouse=True)
def no_turn_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave it to the tests what is slow, unlike elsewhere; but let every turn claim."""
    monkeypatch.setattr(turn, "LONGEST_WAIT", 3600.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return StillClock(monkeypatch, marks)


def slowed(*places: tuple[int, int], times: int = 3) -> Marks:
    """Return marks that have learnt of so many slow claims of these jobs."""
    made = Marks()
    for _ in range(times):
        made.learn("q", places, is_full=True, seconds=SLOW)
    return made


# When there are marks


def test_marks_are_made_after_several_slow_claims_in_a_row(clock: StillClock) -> None:
    assert slowed((0, 7), times=2).of("q") == ()
    assert slowed((0, 7), times=3).of("q") == [(0, 7)]


@pytest.mark.parametrize(("is_full", "seconds"), [(True, 0.001), (False, SLOW)])
def test_a_claim_that_is_fast_or_comes_back_short_is_no_reason(
    clock: StillClock, is_full: bool, seconds: float
) -> None:
    made = slowed((0, 7), times=2)

    made.learn("q", [(0, 9)], is_full, seconds)
    made.learn("q", [(0, 11)], is_full=True, seconds=SLOW)

    assert made.of("q") == ()


def test_many_jobs_may_take_longer_than_few(clock: StillClock) -> None:
    made = Marks()
    for _ in range(3):
        made.learn("q", [(0, number) for number in range(500)], is_full=True, seconds=0.025)

    assert made.of("q") == ()


def test_a_mark_is_the_last_id_of_each_priority_and_they_come_in_the_order_of_the_queue(clock: StillClock) -> None:
    made = slowed((0, 7), (5, 3), (0, 6), (-5, 1))

    made.move("q", [(0, 9), (0, 8), (5, 2)])

    assert made.of("q") == [(5, 3), (0, 9), (-5, 1)]
    assert made.of("another") == ()


def test_marks_hold_for_a_second_and_are_renewed_by_a_slow_claim_only(clock: StillClock) -> None:
    made = slowed((0, 7))

    clock.advance(HOLD)
    expired = made.of("q")
    made.learn("q", [(0, 9)], is_full=True, seconds=SLOW)
    renewed = made.of("q")
    clock.advance(HOLD)
    made.learn("q", [(0, 11)], is_full=True, seconds=0.001)

    assert (expired, renewed, made.of("q")) == ((), [(0, 9)], ())


# What a claim with marks takes


def enqueue(count: int, **using: int) -> list[int]:
    return [int(tasks.noop.using(queue_name="q", **using).enqueue().id) for _ in range(count)]


def claim(made: Marks, limit: int) -> list[int]:
    return [job.id for job in Job.objects.take_turn(WORKER, [], ["q"], limit, marks=made)[1]]


@pytest.fixture
def worker(db: None) -> None:
    Queue.objects.declare("q")
    start_worker()


@needs_compiling
@pytest.mark.usefixtures("worker")
def test_a_marked_claim_begins_at_its_mark_and_the_next_where_it_ended(clock: StillClock) -> None:
    below, *others = enqueue(5)
    made = slowed((0, others[0]))

    assert claim(made, 2) == others[:2]
    assert claim(made, 2) == others[2:]
    assert made.of("q") == [(0, others[-1])]
    assert claim(made, 1) == [below]


@needs_compiling
@pytest.mark.usefixtures("worker")
def test_what_is_ready_below_the_marks_is_claimed_as_soon_as_the_rest_is_too_little(clock: StillClock) -> None:
    below, above = enqueue(2)
    [urgent] = enqueue(1, priority=9)
    made = slowed((0, above))

    assert claim(made, 10) == [urgent, below, above]


@needs_compiling
@pytest.mark.usefixtures("worker")
def test_what_is_ready_below_the_marks_waits_a_second_at_the_most(clock: StillClock) -> None:
    below, *others = enqueue(9)
    made = slowed((0, others[0]))

    during = claim(made, 2)
    clock.advance(HOLD)

    assert during == others[:2]
    assert claim(made, 1) == [below]


@needs_compiling
@pytest.mark.usefixtures("worker")
def test_marked_priorities_are_claimed_in_their_order(clock: StillClock) -> None:
    low = enqueue(2, priority=-1)
    high = enqueue(2, priority=1)
    made = slowed((1, high[0]), (-1, low[0]))

    assert claim(made, 3) == [*high, low[0]]
