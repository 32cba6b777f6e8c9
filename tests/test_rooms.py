"""The limits of queues: for each worker, for all together, and for a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

from django_jobs.models import Job, Queue
from django_jobs.models.database import exclusive, from_now
from django_jobs.models.rescue import rescue_lost
from django_jobs.models.rooms import CONTENDED, Rooms, share_of, tokens_left
from django_jobs.outcomes import ClaimedJob

from . import tasks
from .exchanges import Hand, enqueue
from .rivals import Rival, let_pass
from .rows import WORKER, end_lease, outcome, start_worker, write

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OTHER = "w2"


@pytest.fixture(autouse=True)
def workers() -> None:
    start_worker()
    start_worker(OTHER)


def limited(name: str = "default", **settings: Any) -> None:
    Queue.objects.declare(name)
    Queue.objects.filter(name=name).update(**settings)


def rooms(held: Sequence[ClaimedJob] = (), free: int = 100) -> Rooms:
    return Rooms(Queue.objects.lanes_for(["*"]), held, free)


def claim(
    worker_id: str = WORKER, limit: int = 10, queues: Sequence[str] = ("default",), **room: Any
) -> list[ClaimedJob]:
    """Claim as an exchange does."""
    with exclusive():
        return Job.objects.claim(worker_id, queues, limit, rooms=rooms(**room))


def end(*jobs: ClaimedJob, verb: str = "succeed", **values: Any) -> None:
    for job in jobs:
        write(outcome(job, verb, **values), worker_id=job.worker_id)


def pass_time(seconds: float, name: str = "default") -> None:
    """Let so much time pass for the bucket of a queue."""
    tokens_at = Queue.objects.values_list("tokens_at", flat=True).get(name=name)
    Queue.objects.filter(name=name).update(tokens_at=tokens_at - timedelta(seconds=seconds))


# For each worker


def test_a_worker_holds_no_more_jobs_of_a_queue_than_its_concurrency() -> None:
    limited(concurrency=2)
    enqueue(5)

    held = claim()
    more = claim(held=held)
    end(held[0])
    next_one = claim(held=held[1:])

    assert (len(held), len(more), len(next_one)) == (2, 0, 1)


def test_the_concurrency_of_a_queue_is_for_each_worker() -> None:
    limited(concurrency=2)
    enqueue(5)

    assert [len(claim()), len(claim(OTHER))] == [2, 2]


def test_a_queue_without_room_leaves_the_places_to_others() -> None:
    limited("mail", concurrency=1)
    limited()
    mail, other = enqueue(5, queue_name="mail"), enqueue(5)

    taken = [job.id for job in claim(limit=4, queues=["mail", "default"])]

    assert taken == [mail[0], *other[:3]]


def test_a_larger_concurrency_than_there_is_room_for_changes_nothing() -> None:
    limited(concurrency=100)
    ids = enqueue(5)

    assert [job.id for job in claim(limit=3)] == ids[:3]


# For all workers together


def test_no_more_jobs_of_a_queue_run_than_it_may_whatever_the_number_of_workers() -> None:
    limited(max_running=3)
    enqueue(10)

    mine, theirs, none = claim(limit=2), claim(OTHER, limit=2), claim()
    end(mine[0])
    after_one_has_ended = claim(OTHER)

    assert [len(mine), len(theirs), len(none), len(after_one_has_ended)] == [2, 1, 0, 1]


@pytest.mark.parametrize("verb", ["fail", "retry", "snooze", "cancel", "release"])
def test_a_job_that_ends_in_any_way_makes_room(verb: str) -> None:
    limited(max_running=1)
    enqueue(2)

    end(claim()[0], verb=verb, delay=60.0)

    assert len(claim(OTHER)) == 1


def test_the_jobs_of_a_lost_worker_make_room_when_they_are_rescued() -> None:
    limited(max_running=2)
    enqueue(4)
    claim(limit=2)
    end_lease()

    before = claim(OTHER)
    rescue_lost()

    assert (len(before), len(claim(OTHER))) == (0, 2)


def test_a_limit_of_all_workers_can_be_lowered_and_raised_while_jobs_run() -> None:
    limited(max_running=3)
    enqueue(10)
    running = claim()

    limited(max_running=1)
    lowered = claim(OTHER)
    end(*running[:2])
    still = claim(OTHER)
    limited(max_running=2)
    raised = claim(OTHER)

    assert [len(running), len(lowered), len(still), len(raised)] == [3, 0, 0, 1]


def test_running_jobs_of_other_queues_do_not_count() -> None:
    limited(max_running=1)
    limited("mail", max_running=2)
    enqueue(2), enqueue(3, queue_name="mail")

    assert len(claim(queues=["default", "mail"])) == 3


def test_a_full_queue_with_a_long_backlog_keeps_no_other_waiting() -> None:
    limited("mail", max_running=1)
    limited()
    enqueue(50, queue_name="mail", priority=10)
    other = enqueue(3)
    claim(limit=1, queues=["mail"])

    assert [job.id for job in claim(OTHER, queues=["mail", "default"])] == other


def test_what_a_full_queue_leaves_goes_to_the_largest_priority_of_the_others() -> None:
    limited("mail", max_running=1)
    limited("a"), limited("b")
    enqueue(50, queue_name="mail", priority=10)
    enqueue(5, queue_name="a")
    larger = enqueue(5, queue_name="b", priority=5)
    claim(limit=1, queues=["mail"])

    assert [job.id for job in claim(OTHER, limit=4, queues=["mail", "a", "b"])] == larger[:4]


@pytest.mark.django_db(transaction=True)
def test_places_of_a_queue_that_another_worker_is_claiming_go_to_others_and_no_more_than_they_have_room_for() -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("Rows cannot be locked here: one claim waits for the other.")
    limited("mail", max_running=5)
    limited(concurrency=2)
    enqueue(5, queue_name="mail", priority=10)
    ids = enqueue(5)
    with Rival() as rival:
        rival.begin()
        rival.run(lambda: claim(OTHER, limit=1, queues=["mail"]))

        mine = [job.id for job in claim(limit=4, queues=["mail", "default"])]
        rival.commit()

    assert mine == ids[:2]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("settings", [{"max_running": 2}, {"rate_limit": 2, "rate_window": 3600.0}])
def test_two_workers_that_claim_at_once_take_no_more_than_the_limit_together(settings: dict[str, Any]) -> None:
    limited(**settings)
    enqueue(10)
    with Rival() as rival:
        rival.begin()
        theirs = rival.run(lambda: claim(OTHER, limit=1))
        with Rival() as third:
            call = third.start(lambda: claim(limit=5))
            let_pass(call)
            rival.commit()
            mine = call.result()
            mine += third.run(lambda: claim(limit=5))

    assert len(theirs) == 1
    assert len(mine) == 1


@pytest.mark.django_db(transaction=True)
def test_a_claim_that_meets_another_one_is_made_again_soon() -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("Rows cannot be locked here: one claim waits for the other.")
    limited(max_running=2)
    enqueue(10)
    with Rival() as rival:
        rival.begin()
        rival.run(lambda: claim(OTHER, limit=1))
        with Hand() as hand:
            held = hand.turn()
            pause = hand.exchange._pause()
        rival.commit()

    assert held == []
    assert 0 < pause <= CONTENDED


@pytest.mark.django_db(transaction=True)
def test_the_running_jobs_are_counted_after_the_lock_was_taken() -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("Rows cannot be locked here: one claim waits for the other.")
    limited(max_running=2)
    enqueue(10)
    met: list[int] = []

    def at_the_lock(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith('SELECT "django_jobs_queue"') and "SKIP LOCKED" in sql and not met:
            met.append(len(rival.run(lambda: claim(OTHER))))
        return execute(sql, *rest)

    with Rival() as rival, connection.execute_wrapper(at_the_lock):
        mine = claim()

    assert (met, len(mine)) == ([2], 0)


# For a time


def test_no_more_jobs_start_than_the_rate_says_and_then_as_fast_as_it_says() -> None:
    limited(rate_limit=4, rate_window=2.0)
    enqueue(20)

    burst, none = claim(), claim(OTHER)
    pass_time(0.5)
    after_half_a_second = claim()
    pass_time(0.4)
    too_early = claim()
    pass_time(3600.0)
    after_a_pause = claim()

    assert [len(each) for each in (burst, none, after_half_a_second, too_early, after_a_pause)] == [4, 0, 1, 0, 4]


def test_a_rate_counts_starts_whatever_becomes_of_the_jobs() -> None:
    limited(rate_limit=2, rate_window=3600.0)
    enqueue(2)

    end(*claim(), verb="release")

    assert claim() == []


def test_a_job_that_was_not_there_takes_no_token() -> None:
    limited(rate_limit=2, rate_window=3600.0)
    enqueue(1)
    claim()

    enqueue(2)

    assert len(claim()) == 1


def test_what_starts_at_a_rate_is_claimed_for_free_threads_only() -> None:
    limited(rate_limit=10, rate_window=1.0)
    enqueue(10)

    assert len(claim(free=3)) == 3


def test_a_smaller_rate_counts_at_once() -> None:
    limited(rate_limit=10, rate_window=1.0)
    enqueue(20)
    claim(limit=1)
    limited(rate_limit=2, rate_window=3600.0)

    assert len(claim()) == 2


def test_a_rate_and_a_limit_of_running_jobs_both_count() -> None:
    limited(rate_limit=3, rate_window=3600.0, max_running=2)
    enqueue(10)

    first = claim()
    end(*first)

    assert (len(first), len(claim())) == (2, 1)


def test_an_exchange_looks_again_when_the_next_job_may_start() -> None:
    limited(rate_limit=2, rate_window=0.5)
    enqueue(5)
    with Hand(concurrency=5) as hand:
        hand.turn()
        held = hand.turn()

        assert len(held) == 2
        assert 0 < hand.exchange._pause() <= 0.25


def test_a_burst_waits_for_what_only_limits_keep_back_and_does_not_spin() -> None:
    limited(max_running=1)
    enqueue(2)
    claim(OTHER, limit=1)
    with Hand(burst=True) as hand:
        hand.turn()
        hand.exchange.look_again()

        assert hand.calls == ["nothing left"]
        assert hand.exchange._pause() > 0


def test_the_end_of_a_job_makes_room_for_the_next_one_of_its_queue_in_the_same_turn() -> None:
    limited(concurrency=1)
    ids = enqueue(3)
    with Hand(concurrency=2) as hand:
        held = [hand.turn()]
        for _ in ids[1:]:
            hand.end(hand.begin())
            held.append(hand.turn())

    assert held == [[pk] for pk in ids]


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_meets_a_row_that_somebody_holds_for_long_tries_less_and_less_often() -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("Rows cannot be locked here: one claim waits for the other.")
    limited(max_running=2)
    ids = enqueue(10)
    pauses = []
    with Rival() as rival, Hand() as hand:
        rival.begin()
        rival.run(lambda: limited(max_running=1))
        for _ in range(8):
            hand.turn()
            pauses.append(hand.exchange._pause())
        rival.commit()
        held = hand.turn()

    assert 0 < pauses[0] <= CONTENDED
    assert 10 * CONTENDED < pauses[-1] <= 0.1
    assert held == ids[:1]


# Pure


@pytest.mark.parametrize(
    ("tokens", "seconds", "left"),
    [(None, 0, 10), (0.0, 0, 0), (0.0, 1, 5), (3.0, 1, 8), (3.0, 60, 10), (3.0, -60, 3), (float("nan"), 0, 10)],
)
def test_a_bucket_fills_at_its_rate_and_never_over_its_limit(tokens: float | None, seconds: float, left: float) -> None:
    assert tokens_left(10, 2.0, tokens, NOW - timedelta(seconds=seconds), NOW) == left


def test_of_several_waits_the_shortest_counts() -> None:
    told = Rooms()

    for seconds in (0.5, None, 0.1, 0.3):
        told.hold_back(seconds)

    assert (told.is_held_back, told.look_in) == (True, 0.1)


def test_the_wait_for_the_next_job_is_told() -> None:
    share = share_of(None, None, 10, 2.0, 0.5, NOW, NOW)

    assert (share.jobs, share.wait) == (0, pytest.approx(0.1))


# Turns


def run_one_by_one(count: int) -> list[int]:
    """Let a worker with one thread run so many jobs, and return their ids in the order in which they ran."""
    ran = []
    with Hand(concurrency=1, claim_ahead=0) as hand:
        for _ in range(count):
            hand.turn()
            job = hand.begin()
            ran.append(job.id)
            hand.end(job)
    return ran


def test_a_worker_of_many_queues_takes_of_each_in_turn() -> None:
    for name in ("a", "b", "c"):
        limited(name)
    long = enqueue(20, queue_name="a")
    short = enqueue(2, queue_name="b") + enqueue(2, queue_name="c")

    ran = run_one_by_one(8)

    assert set(short) < set(ran[:6])
    assert set(ran) - set(short) == set(long[:4])


def test_the_order_of_priorities_holds_across_queues_and_turns() -> None:
    limited("a"), limited("b")
    low, high = enqueue(2, queue_name="a"), enqueue(3, queue_name="b", priority=1)

    ran = run_one_by_one(5)

    assert ran == [*high, *low]


# Settings of a queue in the hands of an exchange


def test_a_changed_limit_reaches_an_exchange_with_its_next_look() -> None:
    limited(concurrency=1)
    ids = enqueue(4)
    with Hand(concurrency=4) as hand:
        before = hand.turn()
        limited(concurrency=3)
        after = hand.look()

    assert (before, after) == (ids[:1], ids[:3])


def test_the_timeout_of_a_queue_counts_for_jobs_without_one_of_their_own() -> None:
    limited(timeout=5.0)
    enqueue(1), enqueue(1, timeout=60)
    with Hand() as hand:
        hand.turn()

        assert [hand.begin().timeout, hand.begin().timeout] == [5.0, 60.0]


def test_an_exchange_polls_as_often_as_its_most_impatient_queue_says() -> None:
    limited(poll_interval=0.25)
    limited("mail", poll_interval=60.0)
    with Hand(poll_interval=1.0) as hand:
        hand.turn()

        assert hand.exchange._pause() <= 0.25 * 1.1


def test_tokens_are_counted_by_the_clock_of_the_database() -> None:
    limited(rate_limit=2, rate_window=3600.0)
    enqueue(5)

    claim()

    taken_just_now = Queue.objects.filter(tokens_at__lte=Now(), tokens_at__gt=from_now(timedelta(minutes=-5)))
    assert taken_just_now.values_list("tokens", flat=True).get() == 0


def test_coroutines_of_a_queue_may_run_in_threads_each_with_a_loop_of_its_own() -> None:
    limited("calm")
    limited("blocking", executor="thread")
    enqueue(1, tasks.add_async, queue_name="calm"), enqueue(1, tasks.add_async, queue_name="blocking")
    with Hand() as hand:
        hand.turn()

        assert hand.begin().queue_name == "blocking"
        assert hand.threads.waiting == 0


def test_near_its_rate_a_queue_is_claimed_for_free_threads_only_and_far_from_it_ahead() -> None:
    limited(rate_limit=100, rate_window=3600.0)
    enqueue(40)

    near = claim(limit=20, free=3)
    limited(rate_limit=10_000, tokens=None)
    far = claim(limit=20, free=3)

    assert (len(near), len(far)) == (3, 20)
