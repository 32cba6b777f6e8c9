"""What goes wrong in a pass of the exchange spoils itself only, and no outcome is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection

from django_jobs.models import Attempt, Job, Queue, Worker
from django_jobs.models.rescue import rescue_lost
from django_jobs.outcomes import Failure
from django_jobs.states import JobState
from django_jobs.worker import capacity, exchange, news, progress

from .clocks import StillClock
from .exchanges import Hand, enqueue, states
from .rivals import Rival
from .rows import WORKER, claim, end_lease, row

pytestmark = pytest.mark.django_db

READY, RUNNING, SUCCEEDED, FAILED = JobState.READY, JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED
# As no outcome should be: the database, or JSON, refuses each of them.
BAD: dict[str, dict[str, Any]] = {
    "no message": {"failure": Failure(message=None)},  # type: ignore[arg-type]
    "meta that is no JSON": {"meta": {"a": object()}},
    "a result that is no JSON": {"verb": "succeed", "result": {1, 2}},
    "a number with too many digits": {"verb": "succeed", "result": 1 << 50_000},
}


@pytest.fixture(autouse=True)
def queues() -> None:
    Queue.objects.declare("default")


@pytest.fixture
def hand() -> Iterator[Hand]:
    with Hand(concurrency=3) as made:
        yield made


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return StillClock(monkeypatch, exchange, news, progress, capacity)


def extend_lease() -> None:
    Worker.objects.extend([WORKER], timedelta(seconds=30))


# Outcomes that are refused


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_an_outcome_that_cannot_be_written_spoils_itself_only(hand: Hand, bad: dict[str, Any]) -> None:
    ids = enqueue(3)
    hand.turn()
    hand.end(hand.begin(), result="first")
    hand.end(hand.begin(), **({"verb": "fail"} | bad))
    hand.end(hand.begin(), "retry", delay=60.0)

    held = hand.turn()

    assert held == []
    assert states(ids) == [SUCCEEDED, FAILED, JobState.SCHEDULED]
    assert Attempt.objects.get(job=ids[1]).message
    assert hand.told() == [(ids[0], "succeed"), (ids[1], "fail"), (ids[2], "retry")]


def test_why_an_outcome_could_not_be_written_stands_in_the_history_and_goes_to_receivers(hand: Hand) -> None:
    [pk] = enqueue(1)
    hand.turn()
    hand.end(hand.begin(), "succeed", result={1, 2})

    hand.turn()

    told = hand.announcer._next()
    assert Attempt.objects.get(job=pk).message == "Object of type set is not JSON serializable"
    assert told is not None
    assert isinstance(told.exception, TypeError)


def test_jobs_are_claimed_again_after_an_outcome_was_refused(hand: Hand) -> None:
    enqueue(1)
    hand.turn()
    hand.end(hand.begin(), "succeed", result={1, 2})
    following = enqueue(2)

    hand.turn()

    assert hand.turn() == following


def test_an_outcome_that_cannot_be_written_spoils_itself_only_also_without_a_lease(hand: Hand) -> None:
    ids = enqueue(4)
    hand.turn()
    hand.end(hand.begin(), result="first")
    hand.end(hand.begin(), result={1, 2})
    end_lease()

    hand.turn()

    assert states(ids) == [SUCCEEDED, FAILED, RUNNING, READY]


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not connection.features.has_select_for_update, reason="rows cannot be locked")
def test_outcomes_that_were_written_before_the_database_failed_are_not_taken_for_late(
    hand: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    ids = enqueue(3)
    hand.turn()
    hand.end(hand.begin(), "fail")
    hand.end(hand.begin(), "retry", meta={"a": object()})
    hand.end(hand.begin(), "fail")
    with Rival() as rival:
        rival.begin()
        rival.run(lambda: list(Job.objects.filter(pk=ids[2]).select_for_update()))
        _wait_for_locks("50ms")
        with pytest.raises(OperationalError):
            hand.turn()
        rival.commit()
    _wait_for_locks("0")

    held = hand.turn()

    assert held == []
    assert states(ids) == [FAILED, FAILED, FAILED]
    assert hand.told() == [(pk, "fail") for pk in ids]
    assert "came too late" not in caplog.text


def _wait_for_locks(limit: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{limit}'")


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not connection.features.has_select_for_update, reason="rows cannot be locked")
def test_progress_that_could_not_be_written_is_written_later(hand: Hand, clock: StillClock) -> None:
    [pk] = enqueue(1)
    hand.turn()
    hand.begin()
    hand.exchange.show_progress(pk, {"done": 9, "total": 10, "message": ""})
    with Rival() as rival:
        rival.begin()
        rival.run(lambda: list(Job.objects.filter(pk=pk).select_for_update()))
        _wait_for_locks("50ms")
        with pytest.raises(OperationalError):
            hand.turn()
        rival.commit()
    _wait_for_locks("0")
    clock.advance(1.1)

    hand.turn()

    assert row(pk).progress["done"] == 9


def test_progress_that_cannot_be_written_is_dropped(hand: Hand, clock: StillClock) -> None:
    [pk] = enqueue(1)
    hand.turn()
    hand.begin()
    hand.exchange.show_progress(pk, {"done": object()})

    with pytest.raises((DatabaseError, TypeError)):
        hand.turn()

    clock.advance(1.1)
    hand.turn()
    assert row(pk).progress is None


# Late outcomes


def test_a_late_outcome_changes_nothing_and_is_logged(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    [pk] = enqueue(1)
    hand.turn()
    job = hand.begin()
    hand.exchange.is_claiming = False
    Job.objects.release(WORKER, [pk])
    hand.end(job, result="too late")

    held = hand.turn()

    assert (held, row(pk).state) == ([], READY)
    assert f"Job {pk}, attempt 1: succeed came too late" in caplog.text
    assert hand.told() == []


def test_the_end_of_an_attempt_that_was_taken_away_leaves_the_next_attempt_alone(hand: Hand, clock: StillClock) -> None:
    [pk] = enqueue(1)
    hand.turn()
    first = hand.begin()
    Job.objects.release(WORKER, [pk])
    hand.turn()
    second = hand.begin()
    assert (second.id, second.attempt) == (pk, 2)
    hand.end(first)

    held = hand.turn()

    # Also when the worker compares its own row with the jobs it knows.
    clock.advance(60)
    hand.turn()
    assert held == [pk]
    assert (row(pk).state, row(pk).attempt) == (RUNNING, 2)


# The lease


def test_a_worker_without_a_lease_writes_its_outcomes_and_claims_nothing(hand: Hand) -> None:
    ids = enqueue(5)
    hand.turn()
    hand.end(hand.begin(), result="done")
    end_lease()

    hand.turn()

    assert states(ids) == [SUCCEEDED, RUNNING, RUNNING, READY, READY]
    assert hand.told() == [(ids[0], "succeed")]
    # Its next beat may still come in time.
    assert hand.calls == []


def test_a_worker_whose_beat_came_late_claims_again(hand: Hand) -> None:
    ids = enqueue(2)
    end_lease()
    without = hand.turn()
    extend_lease()

    assert (without, hand.turn()) == ([], ids)


def test_a_worker_that_is_held_for_lost_ends(hand: Hand) -> None:
    ids = enqueue(4)
    hand.turn()
    job = hand.begin()
    end_lease()
    rescue_lost()
    hand.end(job, result="too late")

    hand.turn()

    assert hand.calls[0] == "lease lost"
    assert states(ids) == [READY] * 4
    assert hand.told() == []


def test_a_worker_that_is_held_for_lost_finds_out_while_it_is_idle(hand: Hand, clock: StillClock) -> None:
    hand.turn()
    end_lease()
    rescue_lost()
    clock.advance(hand.options.heartbeat_interval + 1)

    hand.turn()

    assert hand.calls == ["lease lost"]


def test_a_burst_does_not_end_for_want_of_a_lease() -> None:
    with Hand(burst=True) as hand:
        ids = enqueue(1)
        end_lease()
        hand.turn()
        before = hand.calls[:]
        extend_lease()

        assert (before, hand.turn()) == ([], ids)


# After an error


@pytest.mark.django_db(transaction=True)
def test_a_worker_gives_back_what_it_may_have_claimed_without_knowing(hand: Hand) -> None:
    hand.turn()
    unknown = enqueue(1)
    with Rival() as rival:
        rival.run(claim)

    hand.exchange.recover()
    held = hand.turn()

    assert held == unknown
    assert [past.message for past in Attempt.objects.all()] == [
        "The worker did not know that it held this job: the answer to its claim was lost."
    ]
