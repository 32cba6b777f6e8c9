"""Sessions that meet over the slots of one key: nobody waits, never too many get one, and none stays free."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from django.db import connection, transaction

from django_jobs import enqueue_many
from django_jobs.models import Job, Limit, Queue
from django_jobs.models.admission import MOST_NEW_KEYS, give_out
from django_jobs.models.slot_round import Round
from django_jobs.states import JobState

from . import tasks
from .exchanges import Hand, states
from .rivals import Rival
from .rows import claim, outcome, start_worker, write

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        not connection.features.has_select_for_update_skip_locked,
        reason="Rows cannot be locked here: of two that write one waits for the other.",
    ),
]

BLOCKED, READY, RUNNING, SUCCEEDED = JobState.BLOCKED, JobState.READY, JobState.RUNNING, JobState.SUCCEEDED


@pytest.fixture(autouse=True)
def worker() -> str:
    Queue.objects.declare("default")
    return start_worker()


def enqueue(limit: int = 1) -> int:
    return int(tasks.noop.using(concurrency_key="k", concurrency_limit=limit).enqueue().id)


def end(job: Any) -> None:
    write(outcome(job, "succeed"))


def settle() -> Any:
    return give_out(Job.objects.all(), ["k"])


def lock_the_key() -> None:
    list(Limit.objects.filter(key="k").select_for_update())


def test_a_job_of_a_key_that_an_open_transaction_uses_for_the_first_time_is_blocked_and_nobody_waits() -> None:
    with Rival() as rival:
        rival.begin()
        first = rival.run(enqueue)

        second = enqueue()

        assert states([second]) == [BLOCKED]
        rival.commit()
    assert states([first, second]) == [READY, BLOCKED]


def test_a_job_that_waited_for_a_transaction_that_was_rolled_back_is_admitted_by_the_leader() -> None:
    with Rival() as rival:
        rival.begin()
        rival.run(enqueue)
        second = enqueue()
        rival.run(transaction.set_rollback, True)
        rival.commit()

        Round().look(Job.objects.all())

    assert states([second]) == [READY]


def test_two_transactions_that_are_open_at_once_never_fill_more_slots_than_there_are() -> None:
    enqueue(limit=2)
    with Rival() as rival:
        rival.begin()
        second = rival.run(enqueue, 2)

        third = enqueue(limit=2)
        rival.commit()

    assert states([second, third]) == [READY, BLOCKED]


def test_a_slot_that_becomes_free_while_a_job_is_being_enqueued_is_given_to_it_by_the_commit() -> None:
    enqueue()
    running = claim()[0]
    with Rival() as rival:
        rival.begin()
        waiting = rival.run(enqueue)
        # The end of the other job sees no one who waits; the enqueue has seen no free slot.
        end(running)
        assert settle().moved == 0

        rival.commit()

    assert states([waiting]) == [READY]


def test_a_job_that_is_enqueued_while_another_is_being_ended_gets_its_slot_after_the_commit() -> None:
    enqueue()
    running = claim()[0]
    with Rival() as rival:
        rival.begin()
        rival.run(end, running)
        waiting = enqueue()
        assert states([waiting]) == [BLOCKED]

        rival.commit()
        rival.run(settle)

    assert states([waiting]) == [READY]


def test_a_job_that_is_enqueued_while_another_is_being_cancelled_gets_its_slot_after_the_commit() -> None:
    first = enqueue()
    with Rival() as rival:
        rival.begin()
        rival.run(lambda: Job.objects.filter(pk=first).cancel())
        waiting = enqueue()
        assert states([waiting]) == [BLOCKED]

        rival.commit()

    assert states([waiting]) == [READY]


def test_a_worker_does_not_wait_for_a_key_that_somebody_holds_and_comes_back_to_it() -> None:
    first, second = enqueue(), enqueue()
    with Rival() as rival, Hand() as hand:
        hand.turn()
        rival.begin()
        rival.run(lock_the_key)
        hand.end(hand.begin())

        hand.turn()
        assert states([first, second]) == [SUCCEEDED, BLOCKED]
        assert 0 < hand.exchange._pause() <= 0.05
        rival.commit()
        hand.settle()

    assert states([second]) == [RUNNING]


def test_a_burst_does_not_end_while_somebody_keeps_it_from_giving_a_slot_out() -> None:
    _first, second = enqueue(), enqueue()
    with Rival() as rival, Hand(burst=True) as hand:
        hand.turn()
        rival.begin()
        rival.run(lock_the_key)
        hand.end(hand.begin())

        for _ in range(3):
            hand.turn()
        assert hand.calls == []
        rival.commit()
        hand.settle()

    assert states([second]) == [RUNNING]


def test_an_enqueue_that_finds_the_key_held_tells_a_worker_which_admits_the_job() -> None:
    enqueue()
    end(claim()[0])
    with Rival() as rival, Hand(notify=True) as hand, closing(hand.exchange._wakeup):
        hand.exchange.wait(0)
        rival.begin()
        rival.run(lock_the_key)

        waiting = enqueue()
        assert states([waiting]) == [BLOCKED]
        hand.exchange.wait(20)
        rival.commit()
        hand.settle()

    assert states([waiting]) == [RUNNING]


@pytest.mark.parametrize("free", [1, 2])
def test_slots_that_another_session_gives_out_between_look_and_lock_are_not_given_out_twice(free: int) -> None:
    ids = [enqueue(limit=free) for _ in range(free * 3)]
    for job in claim():
        end(job)
    met: list[str] = []

    def at_the_lock(execute: Any, sql: str, *rest: Any) -> Any:
        if "django_jobs_limit" in sql and "FOR NO KEY UPDATE" in sql and not met:
            met.append(sql)
            assert rival.run(settle).moved == free
        return execute(sql, *rest)

    with Rival() as rival, connection.execute_wrapper(at_the_lock):
        given = settle()

    assert met
    assert given.moved == 0
    assert states(ids) == [SUCCEEDED] * free + [READY] * free + [BLOCKED] * free


def test_a_smaller_limit_that_could_not_be_written_takes_slots_after_the_commit() -> None:
    ids = [enqueue(limit=3) for _ in range(3)]
    with Rival() as rival, transaction.atomic():
        rival.begin()
        rival.run(lock_the_key)

        newest = enqueue(limit=1)
        rival.commit()

    assert states([*ids, newest]) == [READY, BLOCKED, BLOCKED, BLOCKED]


def test_workers_are_told_of_a_job_that_has_got_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_jobs.notifications.WINDOW", 0.0)
    Limit.objects.create(key="k", limit=1, override=0)
    waiting = enqueue()
    with Hand(notify=True) as hand, closing(hand.exchange._wakeup):
        hand.turn()
        hand.exchange.wait(0)
        Limit.objects.update(override=1)

        Round().look(Job.objects.all())
        hand.exchange.wait(0)
        hand.exchange.wait(20)

        assert hand.exchange._has_heard
    assert states([waiting]) == [READY]


def test_workers_are_told_of_jobs_without_a_key_that_were_enqueued_beside_a_blocked_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_jobs.notifications.WINDOW", 0.0)
    Limit.objects.create(key="k", limit=1, override=0)
    with Hand(notify=True) as hand, closing(hand.exchange._wakeup):
        hand.turn()
        hand.exchange.wait(0)

        enqueue_many([(tasks.noop.using(concurrency_key="k"), (), {}), (tasks.noop, (), {})])
        hand.exchange.wait(0)
        hand.exchange.wait(20)

        assert hand.exchange._has_heard


def test_a_blocked_job_that_somebody_is_just_cancelling_is_passed_over() -> None:
    _first, second, third = enqueue(), enqueue(), enqueue()
    running = claim()[0]
    with Rival() as rival:
        rival.begin()
        rival.run(lambda: Job.objects.filter(pk=second).cancel())
        end(running)

        settle()
        rival.commit()

    assert states([second, third]) == [JobState.CANCELLED, READY]


def test_cancelling_and_ending_jobs_of_one_key_do_not_wait_for_each_other_for_ever() -> None:
    first, second = enqueue(), enqueue()
    running = claim()[0]
    with Rival() as rival:
        rival.begin()
        rival.run(lambda: Job.objects.filter(pk=second).cancel())
        rival.run(lock_the_key)

        end(running)
        given = settle()
        rival.commit()

    assert given.moved == 0
    assert states([first, second]) == [SUCCEEDED, JobState.CANCELLED]


def test_a_rolled_back_enqueue_leaves_the_slot_to_the_next() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        enqueue()
        raise ZeroDivisionError

    assert states([enqueue()]) == [READY]


def test_an_open_transaction_with_many_new_keys_leaves_most_new_keys_to_others() -> None:
    with Rival() as rival:
        rival.begin()
        many = [tasks.noop.using(concurrency_key=f"import {number}") for number in range(3000)]
        rival.run(lambda: enqueue_many([(each, (), {}) for each in many]))

        ids = [int(tasks.noop.using(concurrency_key=f"other {number}").enqueue().id) for number in range(40)]

        # Two names may share a lock, of 1,024: here less than 2 are expected to.
        assert states(ids).count(READY) >= 30
        assert Limit.objects.count() == states(ids).count(READY)
        rival.commit()
    assert Job.objects.ready().count() >= 3000 + 30
    assert MOST_NEW_KEYS <= 100


def test_a_new_job_does_not_pass_those_of_its_key_that_got_slots_since_it_was_written() -> None:
    first, second, third = (enqueue(limit=2) for _ in range(3))
    running = claim()
    met: list[int] = []

    def after_the_insert(execute: Any, sql: str, *rest: Any) -> Any:
        answer = execute(sql, *rest)
        if "INSERT INTO" in sql and "django_jobs_job" in sql and not met:
            met.append(1)
            rival.run(lambda: [end(job) for job in running])
            assert rival.run(settle).moved == 1
        return answer

    with Rival() as rival, connection.execute_wrapper(after_the_insert):
        newest = enqueue(limit=2)

    assert met
    assert states([first, second, third, newest]) == [SUCCEEDED, SUCCEEDED, READY, READY]
    assert [job.id for job in claim()] == [third, newest]


def test_a_worker_comes_to_all_its_keys_also_behind_many_that_somebody_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_jobs.models.admission.KEYS_AT_ONCE", 2)
    keyed = [tasks.noop.using(concurrency_key=key) for key in "abcd"]
    waiting = [int([each.enqueue(), each.enqueue()][1].id) for each in keyed]
    for job in claim():
        end(job)
    with Rival() as rival:
        rival.begin()
        rival.run(lambda: list(Limit.objects.filter(key__in="abc").select_for_update()))

        given = give_out(Job.objects.all(), "abcd")
        rival.commit()

    assert given == (1, frozenset("abc"))
    assert states(waiting) == [BLOCKED, BLOCKED, BLOCKED, READY]


@pytest.mark.parametrize("limit", [3, 4])
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_with_an_old_view_enqueues_beside_others_and_its_job_gets_its_slot_at_the_commit(
    level: str, limit: int
) -> None:
    enqueue(limit=3)
    with Rival() as rival, transaction.atomic():
        connection.cursor().execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        Job.objects.count()
        rival.run(enqueue, 3)

        newest = enqueue(limit=limit)

        assert states([newest]) == [BLOCKED]
    assert states([newest]) == [READY]
    assert Limit.objects.get().limit == limit


def test_a_transaction_with_an_old_view_cancels_beside_others_and_leaves_the_slot_at_the_commit() -> None:
    first, second = enqueue(), enqueue()
    with Rival() as rival, transaction.atomic():
        connection.cursor().execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        Job.objects.count()
        rival.run(enqueue, 2)

        Job.objects.filter(pk=first).cancel()

    assert states([first, second]) == [JobState.CANCELLED, READY]
