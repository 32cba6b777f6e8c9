"""A turn that meets others at its rows: what each of them wins, and that nothing is written or claimed twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from django_jobs.models import Attempt, Job, Queue
from django_jobs.models import turn as turn_module
from django_jobs.models.database import lock_free_rows
from django_jobs.models.rescue import rescue_lost
from django_jobs.outcomes import ClaimedJob
from django_jobs.states import JobState

from . import tasks
from .exchanges import Hand, enqueue, states
from .own_sessions import adopt, needs_compiling, set_up
from .rivals import TIMEOUT, Rival, wait_until_blocked
from .rows import WORKER, claim, claimed, end_lease, outcome, row, start_worker, values, write

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, needs_compiling]

READY, RUNNING, SUCCEEDED, CANCELLED = JobState.READY, JobState.RUNNING, JobState.SUCCEEDED, JobState.CANCELLED

Claims = tuple[int, list[ClaimedJob]]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, no turn has waited for too long unless the test says so."""
    monkeypatch.setattr(turn_module, "LONGEST_WAIT", 3600.0)


@pytest.fixture(autouse=True)
def worker() -> str:
    Queue.objects.declare("default")
    return start_worker()


@pytest.fixture(params=[True, False], ids=["prepared", "not prepared"])
def turns(request: pytest.FixtureRequest) -> Iterator[Rival]:
    """The thread that makes the turns."""
    with Rival() as rival:
        if request.param:
            rival.run(set_up)
        yield rival


def take_turn(ended: Sequence[ClaimedJob] = (), limit: int = 10, worker_id: str = WORKER) -> Claims:
    return Job.objects.take_turn(worker_id, [(job.id, job.attempt, None) for job in ended], ["default"], limit)


def ids_of(jobs: Sequence[ClaimedJob]) -> list[int]:
    return [job.id for job in jobs]


@contextmanager
def waiting(turns: Rival, ended: ClaimedJob, **options: Any) -> Iterator[Future[Claims]]:
    """Have a turn wait for the row of a job that it wants to finish; let it go on at the end of the block.

    What happens inside has been committed since the turn has begun, and is not in what it sees of the database.
    """
    with Rival() as holder:
        holder.begin()
        holder.run(lambda: list(Job.objects.filter(pk=ended.id).select_for_update()))
        turn = turns.start(lambda: take_turn([ended], **options))
        wait_until_blocked()
        wait_for_locks("5s")
        yield turn
        wait_for_locks("0")
        holder.commit()


def wait_for_locks(limit: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{limit}'")


# Two turns


def test_two_turns_at_once_share_the_jobs(turns: Rival) -> None:
    start_worker("w2")
    ids = enqueue(10)
    with Rival() as other:
        other.begin()
        _, theirs = other.run(lambda: take_turn(limit=4, worker_id="w2"))

        _, ours = turns.run(lambda: take_turn(limit=10))

    assert (ids_of(theirs), ids_of(ours)) == (ids[:4], ids[4:])


def test_of_two_turns_with_the_same_success_one_writes_it_and_the_other_finds_it_written(turns: Rival) -> None:
    ended = claimed()
    with Rival() as other:
        other.begin()
        first = other.run(lambda: take_turn([ended]))
        second = turns.start(lambda: take_turn([ended]))
        wait_until_blocked()
        other.commit()
        finished_at = row(ended.id).finished_at

        answer = second.result(TIMEOUT)

    assert (first[0], answer[0]) == (1, 0)
    assert row(ended.id).finished_at == finished_at
    assert ids_of([done.job for done in write(outcome(ended, "succeed")).done]) == [ended.id]


# A turn and a cancellation


def test_a_cancellation_before_a_turn_that_waits_for_it_is_not_overwritten(turns: Rival) -> None:
    ended, others = claimed(), [claimed(), claimed()]
    with Rival() as person:
        person.begin()
        person.run(Job.objects.filter(pk=ended.id).cancel)
        turn = turns.start(lambda: take_turn([others[0], ended, others[1]]))
        wait_until_blocked()
        person.commit()

        done, _ = turn.result(TIMEOUT)

    assert done == 2
    assert states([job.id for job in (ended, *others)]) == [RUNNING, SUCCEEDED, SUCCEEDED]


def test_a_cancellation_that_waits_for_a_turn_finds_the_job_finished(turns: Rival) -> None:
    ended = claimed()
    with Rival() as person:
        turns.begin()
        done, _ = turns.run(lambda: take_turn([ended]))
        asked = person.start(Job.objects.filter(pk=ended.id).cancel)
        wait_until_blocked()
        turns.commit()

        moved = asked.result(TIMEOUT)

    assert (done, moved, row(ended.id).state) == (1, 0, SUCCEEDED)


def test_a_cancellation_that_waits_for_a_claim_asks_the_job_to_stop(turns: Rival) -> None:
    [pk] = enqueue(1)
    with Rival() as person:
        turns.begin()
        turns.run(take_turn)
        asked = person.start(Job.objects.filter(pk=pk).cancel)
        wait_until_blocked()
        turns.commit()

        moved = asked.result(TIMEOUT)

    assert (moved, row(pk).state, row(pk).cancel_requested_at is None) == (1, RUNNING, False)


def test_the_exchange_ends_a_job_as_cancelled_that_was_asked_to_stop_while_its_success_was_written() -> None:
    with Hand() as hand, Rival() as thread, Rival() as person:
        thread.run(adopt, hand)
        ids = enqueue(4)
        thread.run(hand.turn)
        for _ in range(2):
            hand.end(hand.begin(), duration=5.0)
        person.begin()
        person.run(Job.objects.filter(pk=ids[0]).cancel)
        passing = thread.start(hand.turn)
        wait_until_blocked()
        person.commit()

        held = passing.result(TIMEOUT)
        hand.exchange._thread = None

    assert states(ids) == [CANCELLED, SUCCEEDED, RUNNING, RUNNING]
    assert (held, hand.exchange.processed) == (ids[2:], 2)
    assert sorted(hand.told()) == [(ids[0], "cancel"), (ids[1], "succeed")]
    assert [hand.begin().id, hand.begin().id] == ids[2:]


# What changes while a turn waits


def test_a_turn_that_had_to_wait_claims_the_jobs_as_they_are_by_then(turns: Rival) -> None:
    start_worker("w2")
    ended = claimed()
    first, cancelled, raised, moved, deleted, taken, noted, back = enqueue(8)
    with waiting(turns, ended) as turn:
        Job.objects.filter(pk=cancelled).cancel()
        Job.objects.filter(pk=raised).update(priority=50)
        Job.objects.filter(pk=moved).update(queue_name="elsewhere")
        Job.objects.filter(pk=deleted).delete()
        between = Job.objects.ready().filter(pk__gte=first, pk__lt=taken)
        between.filter(queue_name="default").update(queue_name="for a moment")
        [theirs] = claim("w2", 1)
        Job.objects.filter(queue_name="for a moment").update(queue_name="default")
        Job.objects.filter(pk=noted).update(args=[1], meta={"noted": True})
        # It has been claimed and given back: one attempt more than the turn sees.
        Job.objects.filter(pk=back).update(priority=100)
        [given_back] = claim("w2", 1)
        write(outcome(given_back, "release"), worker_id="w2")
        Job.objects.filter(pk=back).update(priority=0)
    done, jobs = turn.result(TIMEOUT)

    assert (theirs.id, given_back.id) == (taken, back)
    assert done == 1
    assert ids_of(jobs) == [raised, first, noted, back]
    assert [row(pk).state for pk in (cancelled, moved, taken)] == [CANCELLED, READY, RUNNING]
    assert not values(deleted)
    for job in jobs:
        stored = row(job.id)
        assert (job.priority, job.args, job.meta, job.attempt) == (
            stored.priority,
            stored.args,
            stored.meta,
            stored.attempt,
        )
        assert (stored.state, stored.worker_id) == (RUNNING, WORKER)
    assert jobs[-1].attempt == 2
    assert len(jobs[-1].history) == 1


def test_a_turn_does_not_see_jobs_that_came_while_it_waited_and_the_next_does(turns: Rival) -> None:
    ended = claimed()
    with waiting(turns, ended) as turn:
        ids = enqueue(2)
    done, jobs = turn.result(TIMEOUT)

    assert (done, jobs) == (1, [])
    assert ids_of(turns.run(take_turn)[1]) == ids


def test_a_job_whose_priority_is_just_being_changed_is_claimed_afterwards(turns: Rival) -> None:
    [first, changed] = enqueue(2)
    with Rival() as person:
        person.begin()
        person.run(lambda: Job.objects.filter(pk=changed).update(priority=50))
        _, at_once = turns.run(take_turn)
        person.commit()

        _, then = turns.run(take_turn)

    assert (ids_of(at_once), ids_of(then)) == ([first], [changed])
    assert then[0].priority == 50


def test_a_job_that_is_just_being_requeued_is_claimed_afterwards_and_once(turns: Rival) -> None:
    ended = claimed(queue_name="default")
    write(outcome(ended, "fail"))
    with Rival() as person:
        person.begin()
        person.run(Job.objects.filter(pk=ended.id).requeue)
        late, at_once = turns.run(lambda: take_turn())
        person.commit()

        _, then = turns.run(take_turn)

    assert (late, at_once) == (0, [])
    assert [(job.id, job.attempt) for job in then] == [(ended.id, 2)]


def test_the_success_of_an_earlier_attempt_does_not_end_a_requeued_job(turns: Rival) -> None:
    ended = claimed(queue_name="default")
    take_turn([ended], limit=0)
    Job.objects.filter(pk=ended.id).requeue()

    done, jobs = turns.run(lambda: take_turn([ended]))

    assert done == 0
    assert [(job.id, job.attempt) for job in jobs] == [(ended.id, 2)]
    assert row(ended.id).state == RUNNING


# A turn and a pause


def test_a_pause_that_is_committed_before_a_turn_begins_keeps_it_from_claiming(turns: Rival) -> None:
    enqueue(2)
    with Rival() as person:
        person.begin()
        person.run(Queue.objects.pause, "default")
        _, before = turns.run(lambda: take_turn(limit=1))
        person.commit()

    _, after = turns.run(take_turn)

    assert (len(before), after) == (1, [])


def test_what_a_turn_claims_that_waited_while_its_queue_was_paused_is_given_back_unbegun() -> None:
    with Hand(concurrency=2) as hand, Rival() as thread, Rival() as holder:
        thread.run(adopt, hand)
        ids = enqueue(1)
        thread.run(hand.turn)
        hand.end(hand.begin(), duration=5.0)
        more = enqueue(2)
        holder.begin()
        holder.run(lambda: list(Job.objects.filter(pk=ids[0]).select_for_update()))
        passing = thread.start(hand.turn)
        wait_until_blocked()
        Queue.objects.pause("default")
        holder.commit()
        # It saw the queue as it was when it began.
        claimed_meanwhile = passing.result(TIMEOUT)

        held = thread.run(hand.look)
        hand.exchange._thread = None

    assert (claimed_meanwhile, held) == (more, [])
    assert states([*ids, *more]) == [SUCCEEDED, READY, READY]
    assert [row(pk).max_attempts - row(pk).attempt for pk in more] == [3, 3]


# A turn and the loss of its worker


def test_a_turn_that_waits_for_the_rescue_of_its_job_does_not_finish_it(turns: Rival) -> None:
    ended = claimed(max_attempts=5)
    end_lease()
    with Rival() as leader:
        leader.begin()
        leader.run(rescue_lost)
        turn = turns.start(lambda: take_turn([ended], limit=0))
        wait_until_blocked()
        leader.commit()

        done, _ = turn.result(TIMEOUT)

    assert (done, row(ended.id).state, row(ended.id).worker_id) == (0, READY, "")
    assert Attempt.objects.get().outcome == "crashed"


def test_a_rescue_passes_over_what_a_turn_is_just_finishing(turns: Rival) -> None:
    ended = claimed()
    turns.begin()
    done, _ = turns.run(lambda: take_turn([ended], limit=0))
    end_lease()
    with Rival() as leader:
        rescued = leader.run(rescue_lost)
        turns.commit()

    assert (done, rescued, row(ended.id).state) == (1, 0, SUCCEEDED)


def test_what_a_turn_claims_that_waited_while_its_worker_was_marked_as_lost_is_rescued_by_the_next_pass(
    turns: Rival,
) -> None:
    ended = claimed()
    [pk] = enqueue(1, max_attempts=5)
    with waiting(turns, ended) as turn:
        end_lease()
        rescue_lost()
    with_or_without = turn.exception(TIMEOUT)

    rescue_lost()

    # It saw the lease as it was when it began.
    assert with_or_without is None
    assert states([ended.id, pk]) == [SUCCEEDED, READY]


def test_an_exchange_counts_its_success_once_when_its_lease_ends_while_it_waits() -> None:
    with Hand(concurrency=1) as hand, Rival() as thread, Rival() as holder:
        thread.run(adopt, hand)
        ids = enqueue(1)
        thread.run(hand.turn)
        hand.end(hand.begin(), duration=5.0)
        holder.begin()
        holder.run(lambda: list(Job.objects.filter(pk=ids[0]).select_for_update()))
        passing = thread.start(hand.turn)
        wait_until_blocked()
        end_lease()
        rescue_lost()
        holder.commit()

        passing.result(TIMEOUT)
        hand.exchange.look_soon()
        hand.exchange._news.soon()
        thread.run(hand.turn)
        hand.exchange._thread = None

    assert states(ids) == [SUCCEEDED]
    assert (hand.exchange.processed, hand.told()) == (1, [(ids[0], "succeed")])
    assert hand.calls[:1] == ["lease lost"]


# Several queues


def test_jobs_claimed_before_the_lease_ended_are_not_forgotten_when_the_rest_of_the_turn_finds_it_ended() -> None:
    for name in ("a", "b"):
        Queue.objects.declare(name)
    [locked, free] = enqueue(2, queue_name="a")
    enqueue(2, queue_name="b", priority=-1)
    turns: list[str] = []

    def end_lease_before_filling_up(execute: Any, sql: str, *more: Any) -> Any:
        if "WITH done" in sql:
            turns.append(sql)
            if len(turns) == 2:
                end_lease()
        return execute(sql, *more)

    with Rival() as holder:
        holder.begin()
        holder.run(lambda: list(Job.objects.filter(pk=locked).select_for_update()))
        with connection.execute_wrapper(end_lease_before_filling_up):
            _, jobs = Job.objects.take_turn(WORKER, [], ["a", "b"], 2)

    # The queue of the locked job is not asked again: what it had, it has given.
    assert len(turns) == 2
    assert ids_of(jobs) == list(Job.objects.running().values_list("pk", flat=True)) == [free]


def test_a_turn_of_several_queues_takes_others_in_the_place_of_jobs_that_are_just_taken(turns: Rival) -> None:
    start_worker("w2")
    for name in ("a", "b"):
        enqueue(6, queue_name=name)
    with Rival() as other:
        other.begin()
        _, theirs = other.run(lambda: Job.objects.take_turn("w2", [], ["a", "b"], 6))

        _, ours = turns.run(lambda: Job.objects.take_turn(WORKER, [], ["a", "b"], 6))

    assert len(theirs) == len(ours) == 6
    assert not {*ids_of(theirs)} & {*ids_of(ours)}
    assert ids_of(ours) == sorted(ids_of(ours))


def test_a_success_that_is_refused_in_a_turn_of_several_queues_does_not_cost_its_claims(turns: Rival) -> None:
    lost, kept = claimed(), claimed()
    Job.objects.filter(pk=lost.id).update(worker_id="w2", last_attempted_at=Now())
    ids = [enqueue(1, tasks.noop, queue_name=name)[0] for name in ("a", "b")]

    done, jobs = turns.run(
        lambda: Job.objects.take_turn(WORKER, [(lost.id, 1, None), (kept.id, 1, None)], ["a", "b"], 5)
    )

    assert (done, ids_of(jobs)) == (1, ids)
    assert states([lost.id, kept.id]) == [RUNNING, SUCCEEDED]


def test_a_turn_that_had_to_wait_for_long_claims_nothing_and_locks_nothing_meanwhile(
    turns: Rival, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = claimed()
    ids = enqueue(2)
    monkeypatch.setattr(turn_module, "LONGEST_WAIT", 0.0)
    with waiting(turns, ended) as turn, transaction.atomic():
        meanwhile = list(lock_free_rows(Job.objects.ready()).values_list("pk", flat=True))

    done, jobs = turn.result(TIMEOUT)

    assert (done, jobs) == (1, [])
    assert sorted(meanwhile) == ids
