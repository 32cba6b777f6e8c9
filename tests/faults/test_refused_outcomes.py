"""What becomes of an outcome that the database refuses depends on why: for its value, or for its own state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import DatabaseError

from django_jobs.models import Attempt, Queue
from django_jobs.states import JobState
from django_jobs.worker import outbox
from tests.clocks import StillClock
from tests.exchanges import Hand, enqueue, states
from tests.rows import row

from .triggers import IS_POSTGRESQL, refused

pytestmark = pytest.mark.django_db(transaction=True)
RUNNING, SUCCEEDED, FAILED = JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED
needs_states = pytest.mark.skipif(not IS_POSTGRESQL, reason="Errors have no SQLSTATE here.")


@pytest.fixture
def hand() -> Iterator[Hand]:
    Queue.objects.declare("default")
    with Hand(concurrency=3) as made:
        yield made


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return StillClock(monkeypatch, outbox)


def run_three(hand: Hand) -> list[int]:
    ids = enqueue(3)
    hand.turn()
    for _ in ids:
        hand.end(hand.begin(), result="done")
    return ids


# 54000: "row is too big"; 22003: out of range; 23514: a check; P0001: somebody's trigger.
@needs_states
@pytest.mark.parametrize("state", ["54000", "22003", "23514", "P0001"])
def test_an_outcome_that_is_refused_for_its_value_fails_its_job_only(hand: Hand, state: str) -> None:
    first, odd, last = run_three(hand)

    with refused(f"NEW.id = {odd} AND NEW.state = 'succeeded'", state):
        held = hand.turn()

    assert held == []
    assert states([first, odd, last]) == [SUCCEEDED, FAILED, SUCCEEDED]
    assert "as the test wants it" in Attempt.objects.get(job=odd).message


# 25006: read-only; 53100: disk full; 40P01: deadlock; 42501: no permission; XX000: the server's own mistake.
@needs_states
@pytest.mark.parametrize("state", ["25006", "53100", "40P01", "40001", "57014", "55P03", "42501", "42P01", "XX000"])
def test_an_outcome_that_the_database_cannot_take_now_is_written_later_as_it_is(hand: Hand, state: str) -> None:
    first, odd, last = run_three(hand)

    with refused(f"NEW.id = {odd} AND NEW.state = 'succeeded'", state):
        with pytest.raises(DatabaseError):
            hand.turn()
        hand.exchange.recover()
        meanwhile = states([odd])
    hand.settle()

    assert meanwhile == [RUNNING]
    assert states([first, odd, last]) == [SUCCEEDED] * 3
    assert not Attempt.objects.exists()


def test_an_outcome_that_is_refused_in_every_form_keeps_neither_the_others_nor_the_next_claim(
    hand: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    first, odd, last = run_three(hand)
    following = enqueue(2)

    with refused(f"NEW.id = {odd}"):
        hand.turn()
        held = hand.turn()

    assert held == [odd, *following]
    assert states([first, odd, last]) == [SUCCEEDED, RUNNING, SUCCEEDED]
    assert f"Job {odd}, attempt 1: the database refuses its outcome, also as a failure" in caplog.text


def test_such_an_outcome_is_written_once_the_database_takes_it(hand: Hand, clock: StillClock) -> None:
    ids = run_three(hand)
    with refused(f"NEW.id = {ids[1]}"):
        hand.turn()
    too_early = (hand.turn(), row(ids[1]).state)
    clock.advance(outbox.TRY_AGAIN_AFTER)

    held = hand.turn()

    assert too_early == ([ids[1]], RUNNING)
    assert (held, states(ids)) == ([], [SUCCEEDED] * 3)
    assert sorted(hand.told()) == [(pk, "succeed") for pk in ids]


def test_a_worker_that_abandons_its_jobs_has_one_outcome_of_each(hand: Hand) -> None:
    ids = run_three(hand)
    with refused(f"NEW.id = {ids[1]}"):
        hand.turn()
        hand.exchange.abandon()

        held = hand.turn()

    assert (held, states(ids)) == ([ids[1]], [SUCCEEDED, RUNNING, SUCCEEDED])
