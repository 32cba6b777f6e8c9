"""What the exchange gives back, cancels and shows while jobs run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from django_jobs.models import Attempt, Job, Queue
from django_jobs.models.database import jobs_connection
from django_jobs.states import AttemptOutcome, JobState
from django_jobs.worker import capacity, exchange, news, progress

from . import tasks
from .clocks import StillClock
from .exchanges import Hand, enqueue, states
from .rows import claim, row, start_worker

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


# Giving back


def test_jobs_claimed_ahead_are_given_back_when_they_have_waited_a_second_behind_slow_ones(
    hand: Hand, clock: StillClock
) -> None:
    short_jobs(hand)
    ids = enqueue(10)
    hand.turn()
    running = [hand.begin().id, hand.begin().id]
    clock.advance(1.1)

    held = hand.turn()

    assert held == running == ids[:2]
    assert states(ids) == [RUNNING] * 2 + [READY] * 8
    # Others take them, and not the one that gave them back.
    clock.advance(1.1)
    assert hand.turn() == running
    start_worker("w2")
    assert [job.id for job in claim("w2")] == ids[2:]


@pytest.mark.parametrize("happen", ["its queue is paused", "it is asked to stop"])
def test_jobs_do_not_wait_longer_behind_a_slow_one_because_of_what_happens_to_that(
    hand: Hand, clock: StillClock, happen: str
) -> None:
    short_jobs(hand)
    slow, ids = enqueue(2, priority=10, queue_name="mail"), enqueue(10)
    hand.turn()
    hand.begin(), hand.begin()
    if happen == "it is asked to stop":
        Job.objects.filter(pk__in=slow).cancel()
    else:
        Queue.objects.pause("mail")

    for _ in range(3):
        clock.advance(0.6)
        held = hand.look()

    assert held == slow
    assert states(ids) == [READY] * 10


def test_jobs_claimed_ahead_after_a_quiet_hour_are_given_their_second(hand: Hand, clock: StillClock) -> None:
    short_jobs(hand)
    clock.advance(3600)
    ids = enqueue(10)
    hand.turn()

    held = hand.look()

    assert held == ids


def test_jobs_claimed_ahead_stay_while_the_ones_before_them_end(hand: Hand, clock: StillClock) -> None:
    short_jobs(hand)
    ids = enqueue(10)
    hand.turn()

    for _ in range(3):
        clock.advance(0.9)
        hand.end(hand.begin(), duration=0.001)
        hand.look()

    assert hand.exchange.held == ids[3:]


def test_coroutines_that_end_do_not_hide_that_the_threads_are_stuck(clock: StillClock) -> None:
    with Hand(concurrency=1) as hand:
        short_jobs(hand)
        coroutine = int(tasks.add_async.enqueue(1, 2).id)
        ids = enqueue(3)
        hand.settle()
        hand.begin()
        clock.advance(0.9)
        hand.end(hand.exchange._held[coroutine], duration=0.001)
        before = hand.look()
        clock.advance(0.2)

        after = hand.look()

    assert (before, after) == (ids, ids[:1])


def test_a_job_that_was_given_back_has_its_attempt_in_the_history_and_not_counted(hand: Hand) -> None:
    [pk] = enqueue(1)
    hand.turn()
    hand.exchange.stop_claiming()

    hand.turn()

    job = row(pk)
    assert (job.state, job.attempt, job.max_attempts) == (READY, 1, 4)
    assert [past.outcome for past in Attempt.objects.filter(job=job)] == [AttemptOutcome.INTERRUPTED]


def test_a_paused_queue_gets_back_what_has_not_begun(hand: Hand) -> None:
    [begun] = enqueue(1, priority=1)
    [waiting] = enqueue(1)
    hand.turn()
    hand.begin()
    Queue.objects.pause("default")

    held = hand.look()

    assert held == [begun]
    assert states([begun, waiting]) == [RUNNING, READY]


def test_jobs_of_other_queues_stay_when_one_is_paused() -> None:
    with Hand(concurrency=3) as hand:
        enqueue(1)
        mail = enqueue(2, queue_name="mail")
        hand.turn()
        Queue.objects.pause("default")

        assert hand.look() == mail
        assert [hand.begin().id, hand.begin().id] == mail


def test_a_worker_that_stops_claiming_keeps_only_what_has_begun(hand: Hand) -> None:
    ids = enqueue(3)
    hand.turn()
    begun = hand.begin()

    hand.exchange.stop_claiming()

    assert hand.turn() == [begun.id]
    assert states(ids) == [RUNNING, READY, READY]


def test_a_job_that_is_enqueued_after_a_worker_has_stopped_claiming_does_not_begin_there(hand: Hand) -> None:
    hand.turn()
    late: list[int] = []

    def just_before_the_claim(execute: Any, *statement: Any) -> Any:
        if not late:
            late.append(0)
            hand.exchange.stop_claiming()
            late[:] = enqueue(1)
        return execute(*statement)

    with jobs_connection().execute_wrapper(just_before_the_claim):
        hand.turn()

    assert hand.threads.waiting == 0
    hand.turn()
    assert states(late) == [READY]


def test_a_worker_claims_again_after_it_has_been_told_to(hand: Hand) -> None:
    ids = enqueue(2)
    hand.exchange.stop_claiming()
    paused = hand.turn()
    hand.exchange.resume_claiming()

    assert (paused, hand.turn()) == ([], ids)


def test_a_worker_that_abandons_gives_back_what_runs_on(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    ids = enqueue(2)
    hand.turn()
    running = hand.begin()
    hand.exchange.stop_claiming()
    hand.exchange.abandon()

    held = hand.turn()
    hand.end(running)
    hand.turn()

    assert held == []
    assert states(ids) == [READY, READY]
    assert f"Job {running.id}, attempt 1: succeed came too late" in caplog.text
    assert (running.id, "succeed") not in hand.told()


def test_running_jobs_that_a_worker_does_not_know_are_given_back(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    # As a claim leaves them whose commit was done and whose answer was lost.
    unknown = enqueue(2)
    claim(limit=2)
    known = enqueue(1, priority=5)

    held = hand.turn()

    assert held == [known[0], unknown[0]]
    assert row(unknown[1]).state == READY
    assert "Gave back 2 jobs that worker w1 did not know it had." in caplog.text


# Cancelling


def test_a_claimed_job_is_cancelled_before_it_begins(hand: Hand) -> None:
    ids = enqueue(2)
    hand.turn()
    Job.objects.filter(pk=ids[1]).cancel()

    held = hand.look()

    assert held == ids[:1]
    assert states(ids) == [RUNNING, JobState.CANCELLED]
    assert hand.told() == [(ids[1], "cancel")]
    assert hand.begin().id == ids[0]


def test_a_job_that_ends_after_somebody_asked_to_cancel_it_is_cancelled(hand: Hand) -> None:
    [pk] = enqueue(1)
    hand.turn()
    Job.objects.filter(pk=pk).cancel()
    hand.end(hand.begin(), result="done")

    hand.turn()

    assert row(pk).state == JobState.CANCELLED
    assert hand.told() == [(pk, "cancel")]


# Progress


def show(hand: Hand, pk: int, done: int) -> None:
    hand.exchange.show_progress(pk, {"done": done, "total": 10, "message": ""})


def shown(pk: int) -> int | None:
    progress = row(pk).progress
    return progress and progress["done"]


def test_progress_is_written_at_most_once_a_second(hand: Hand, clock: StillClock) -> None:
    [pk] = enqueue(1)
    hand.turn()
    hand.begin()
    seen = []

    for done, seconds in ((1, 0.0), (2, 0.5), (3, 0.6), (4, 0.1)):
        clock.advance(seconds)
        show(hand, pk, done)
        hand.turn()
        seen.append(shown(pk))

    assert seen == [1, 1, 3, 3]


def test_the_last_progress_is_written_with_the_outcome(hand: Hand) -> None:
    [pk] = enqueue(1)
    hand.turn()
    show(hand, pk, 1)
    hand.turn()
    show(hand, pk, 10)
    hand.end(hand.begin())

    hand.turn()

    assert (row(pk).state, shown(pk)) == (SUCCEEDED, 10)


def test_the_next_pass_comes_in_time_for_the_progress(hand: Hand, clock: StillClock) -> None:
    [pk] = enqueue(1)
    hand.turn()
    show(hand, pk, 1)
    hand.turn()
    show(hand, pk, 2)

    assert 0 < hand.exchange.run_once() <= 1.0


def test_progress_of_a_job_that_has_ended_is_not_kept(hand: Hand, clock: StillClock) -> None:
    [pk] = enqueue(1)
    hand.turn()
    hand.end(hand.begin())
    hand.turn()
    show(hand, pk, 11)
    clock.advance(1.1)

    hand.turn()

    assert shown(pk) is None
