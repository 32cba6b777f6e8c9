"""One pass of the exchange at a time: what it claims, writes and gives back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_jobs.models import Queue, Worker
from django_jobs.states import JobState
from django_jobs.worker import announcer, capacity, exchange, news, progress

from . import tasks
from .clocks import StillClock
from .exchanges import Hand, enqueue, states
from .rows import HOUR

pytestmark = pytest.mark.django_db

READY, RUNNING, SUCCEEDED = JobState.READY, JobState.RUNNING, JobState.SUCCEEDED


@pytest.fixture(autouse=True)
def queues() -> None:
    for name in ("default", "mail"):
        Queue.objects.declare(name)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return StillClock(monkeypatch, exchange, news, progress, capacity)


@pytest.fixture
def hand() -> Iterator[Hand]:
    """An exchange with two threads."""
    with Hand() as made:
        yield made


def short_jobs(hand: Hand, seconds: float = 0.001) -> None:
    """Let jobs end that took so long, one after the other."""
    for pk in enqueue(2):
        hand.turn()
        job = hand.begin()
        assert job.id == pk
        hand.end(job, duration=seconds)
        hand.turn()


# Claiming


def test_a_pass_claims_as_many_jobs_as_there_are_threads(hand: Hand) -> None:
    ids = enqueue(5)

    held = hand.turn()

    assert held == ids[:2]
    assert states(ids) == [RUNNING, RUNNING, READY, READY, READY]
    assert [hand.begin().id, hand.begin().id] == ids[:2]


def test_a_pass_without_a_free_thread_claims_nothing(hand: Hand) -> None:
    enqueue(5)
    held = hand.turn()

    assert hand.turn() == held


def test_a_thread_that_is_free_again_gets_the_next_job_in_the_pass_that_writes_its_outcome(hand: Hand) -> None:
    ids = enqueue(4)
    hand.turn()
    hand.end(hand.begin(), duration=5.0)

    held = hand.turn()

    assert held == ids[1:3]
    assert states(ids) == [SUCCEEDED, RUNNING, RUNNING, READY]


@pytest.mark.django_db(transaction=True)
def test_outcomes_and_claims_are_one_transaction(hand: Hand) -> None:
    enqueue(3)
    hand.turn()
    hand.end(hand.begin(), duration=5.0)
    hand.end(hand.begin(), "fail")

    with CaptureQueriesContext(connection) as queries:
        hand.turn()

    statements = [query["sql"].split()[0] for query in queries]
    assert statements.count("BEGIN") == 1
    assert statements.count("COMMIT") == 1
    assert statements[0] == "BEGIN"
    assert statements[-1] == "COMMIT"


def test_slow_jobs_are_never_claimed_ahead(hand: Hand) -> None:
    short_jobs(hand, seconds=0.06)
    ids = enqueue(10)

    assert hand.turn() == ids[:2]


@pytest.mark.parametrize(("milliseconds", "ahead"), [(10, 10), (1, 100), (0.001, 500)])
def test_jobs_of_milliseconds_are_claimed_ahead_for_fifty_milliseconds(
    hand: Hand, milliseconds: float, ahead: int
) -> None:
    short_jobs(hand, seconds=milliseconds / 1000)
    ids = enqueue(600)

    assert hand.settle() == ids[: 2 + ahead]


def test_nothing_is_claimed_ahead_where_the_option_says_so() -> None:
    with Hand(claim_ahead=0.0) as hand:
        short_jobs(hand)
        ids = enqueue(10)

        assert hand.turn() == ids[:2]


def test_a_slow_job_among_short_ones_ends_the_claiming_ahead(hand: Hand) -> None:
    short_jobs(hand)
    enqueue(1)
    hand.turn()
    hand.end(hand.begin(), duration=30.0)
    hand.turn()
    ids = enqueue(10)

    assert hand.turn() == ids[:2]


def test_a_queue_that_is_not_served_is_left_alone() -> None:
    with Hand() as hand:
        hand.exchange._lanes.patterns = ["mail"]
        enqueue(1)
        ids = enqueue(1, queue_name="mail")

        assert hand.turn() == ids


def test_coroutines_have_places_of_their_own() -> None:
    with Hand(concurrency=1, async_concurrency=2) as hand:
        plain = enqueue(3)
        coroutines = [int(tasks.add_async.enqueue(1, 2).id) for _ in range(4)]

        assert sorted(hand.settle()) == [plain[0], *coroutines[:2]]


def test_a_search_for_coroutines_behind_a_backlog_is_not_repeated_at_once(clock: StillClock) -> None:
    with Hand(concurrency=1) as hand:
        running = enqueue(2)[:1]
        hand.settle()
        coroutine = int(tasks.add_async.enqueue(1, 2).id)

        at_once = hand.settle()
        clock.advance(hand.capacity.search_in() or 0.0)
        later = hand.settle()

    assert (at_once, later) == (running, [*running, coroutine])


def test_an_exchange_that_heard_of_jobs_is_back_in_time_for_the_next_search() -> None:
    with Hand(concurrency=1) as hand:
        enqueue(2)
        hand.settle()
        without_a_hint = hand.exchange.run_once()
        hand.exchange._has_heard = True

        with_a_hint = hand.exchange.run_once()

    assert 0 < with_a_hint <= (hand.capacity.search_in() or 0.0) + 0.05 < without_a_hint


# The worker's own row, once and burst


def test_the_worker_row_is_told_what_was_done(hand: Hand, clock: StillClock) -> None:
    enqueue(3)
    hand.turn()
    hand.end(hand.begin(), duration=5.0)
    hand.end(hand.begin(), "fail")
    hand.turn()
    clock.advance(2.1)

    hand.turn()

    worker = Worker.objects.get()
    assert (worker.processed, worker.failed, worker.active) == (2, 1, 1)


def test_once_claims_one_job_and_ends_after_it() -> None:
    with Hand(once=True) as hand:
        ids = enqueue(3)
        assert (hand.turn(), hand.turn(), hand.calls) == (ids[:1], ids[:1], [])
        hand.end(hand.begin())

        hand.turn()

        assert hand.calls == ["nothing left"]
        assert states(ids) == [SUCCEEDED, READY, READY]


def test_a_burst_ends_when_nothing_is_ready() -> None:
    with Hand(burst=True) as hand:
        ids = enqueue(3)
        enqueue(1, run_after=HOUR)
        hand.turn()
        while not hand.calls:
            hand.end(hand.begin(), duration=5.0)
            hand.turn()

        assert states(ids) == [SUCCEEDED] * 3


def test_a_burst_goes_on_while_receivers_are_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with Hand(burst=True) as hand:
        ids = enqueue(1)
        with monkeypatch.context() as behind:
            behind.setattr(announcer, "MOST_WAITING", -1)
            hand.turn()
        before = hand.calls[:]

        hand.turn()

    assert before == []
    assert hand.exchange.held == ids


def test_a_burst_without_a_queue_to_serve_ends() -> None:
    Queue.objects.all().delete()
    with Hand(burst=True) as hand:
        hand.turn()

    assert hand.calls == ["nothing left"]
