"""Concurrency keys: which jobs get the slots of a key, which wait, and who is next."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from django_jobs import enqueue_many
from django_jobs.compat import InvalidTask
from django_jobs.exceptions import InvalidArgument, InvalidOption
from django_jobs.models import Job, Limit, Queue
from django_jobs.models.admission import KEYS_AT_ONCE, give_out
from django_jobs.models.database import exclusive, from_now
from django_jobs.models.rescue import rescue_lost
from django_jobs.models.slot_round import Round, forget_unused, give_back_paused
from django_jobs.outcomes import ClaimedJob
from django_jobs.states import JobState
from django_jobs.testing import run_jobs

from . import tasks
from .exchanges import Hand, states
from .rivals import Rival
from .rows import HOUR, claim, end_lease, outcome, row, start_worker, state_of, write
from .unique_tasks import ship_latest as index

pytestmark = pytest.mark.django_db

BLOCKED, READY, RUNNING, SCHEDULED = JobState.BLOCKED, JobState.READY, JobState.RUNNING, JobState.SCHEDULED
SUCCEEDED, CANCELLED, FAILED = JobState.SUCCEEDED, JobState.CANCELLED, JobState.FAILED


@pytest.fixture(autouse=True)
def worker() -> str:
    Queue.objects.declare("default")
    return start_worker()


def enqueue(count: int = 1, key: str = "k", limit: int = 1, **using: Any) -> list[int]:
    """Enqueue jobs of a key and return their ids, in order."""
    keyed = tasks.noop.using(concurrency_key=key, concurrency_limit=limit, **using)
    return [int(keyed.enqueue().id) for _ in range(count)]


def look() -> int:
    """Look at all keys, as the leader does from time to time."""
    return Round().look(Job.objects.all())


def end(job: ClaimedJob, verb: str = "succeed", **values: Any) -> None:
    """Write the end of a job and give its slot away, as an exchange does."""
    write(outcome(job, verb, **values))
    give_out(Job.objects.all(), [job.concurrency_key])


def claimed_ids(**options: Any) -> list[int]:
    return [job.id for job in claim(**options)]


# Enqueue


def test_as_many_jobs_of_a_key_as_it_has_slots_are_ready_and_the_others_are_blocked() -> None:
    ids = enqueue(5, limit=2)

    assert states(ids) == [READY, READY, BLOCKED, BLOCKED, BLOCKED]


def test_without_a_limit_one_job_of_a_key_is_ready() -> None:
    keyed = tasks.noop.using(concurrency_key="k")

    ids = [int(keyed.enqueue().id) for _ in range(2)]

    assert states(ids) == [READY, BLOCKED]


def test_keys_do_not_know_of_each_other_and_jobs_without_one_are_free() -> None:
    a, b, free = enqueue(2, "a"), enqueue(2, "b"), [int(tasks.noop.enqueue().id) for _ in range(2)]

    assert states([*a, *b, *free]) == [READY, BLOCKED, READY, BLOCKED, READY, READY]


def test_jobs_of_one_key_share_its_slots_whatever_their_task_and_queue() -> None:
    one = enqueue(1, queue_name="mail")
    other = int(tasks.add.using(concurrency_key="k").enqueue(1).id)

    assert states([*one, other]) == [READY, BLOCKED]


def test_many_jobs_at_once_get_slots_in_their_order() -> None:
    keyed = tasks.noop.using(concurrency_key="k", concurrency_limit=2)

    ids = [int(result.id) for result in keyed.enqueue_many([((number,), {}) for number in range(5)])]

    assert states(ids) == [READY, READY, BLOCKED, BLOCKED, BLOCKED]


def test_many_jobs_of_many_keys_and_of_none_are_enqueued_together() -> None:
    a, b = (tasks.noop.using(concurrency_key=key) for key in "ab")

    ids = [int(result.id) for result in enqueue_many([(each, (), {}) for each in (a, tasks.noop, b, a, tasks.noop, b)])]

    assert states(ids) == [READY, READY, READY, BLOCKED, READY, BLOCKED]


def test_the_largest_priority_among_many_jobs_at_once_gets_the_slot() -> None:
    low, high = (tasks.noop.using(concurrency_key="k", priority=priority) for priority in (0, 10))

    ids = [int(result.id) for result in enqueue_many([(each, (), {}) for each in (low, high, low)])]

    assert states(ids) == [BLOCKED, READY, BLOCKED]


def test_more_keys_than_one_transaction_takes_get_their_slots_all_the_same() -> None:
    each = [tasks.noop.using(concurrency_key=f"key {number}") for number in range(KEYS_AT_ONCE + 20)]

    enqueue_many([(keyed, (), {}) for keyed in each])
    look()

    assert Job.objects.ready().count() == KEYS_AT_ONCE + 20


def test_a_scheduled_job_takes_no_slot_until_it_is_due() -> None:
    later = enqueue(1, run_after=HOUR)
    now = enqueue(2)

    assert states([*later, *now]) == [SCHEDULED, READY, BLOCKED]


def test_a_blocked_job_has_the_state_of_a_waiting_one_for_django() -> None:
    enqueue(1)
    result = tasks.noop.using(concurrency_key="k").enqueue()

    assert result.status == "READY"
    assert tasks.noop.get_result(result.id).status == "READY"


def test_key_and_limit_may_be_made_of_the_arguments() -> None:
    ids = [int(tasks.sync_account.enqueue(*call).id) for call in [(1, 2), (1, 2), (1, 2), (2,), (2,)]]

    assert states(ids) == [READY, READY, BLOCKED, READY, BLOCKED]
    assert dict(Limit.objects.values_list("key", "limit")) == {"account 1": 2, "account 2": 1}


@pytest.mark.parametrize("key", ["", None])
def test_a_job_whose_key_comes_out_empty_needs_no_slot(key: Any) -> None:
    keyed = tasks.noop.using(concurrency_key=lambda *args: key)  # type: ignore[arg-type]

    ids = [int(keyed.enqueue().id) for _ in range(2)]

    assert states(ids) == [READY, READY]


def test_a_job_without_a_key_is_not_asked_for_a_limit() -> None:
    keyed = tasks.noop.using(concurrency_key=lambda *args: None, concurrency_limit=lambda *args: 1 // 0)  # type: ignore[arg-type]

    assert states([int(keyed.enqueue().id)]) == [READY]


@pytest.mark.parametrize("key", [5, 0, False, "x" * 256, "nul \x00", b"bytes", b""])
def test_a_key_that_cannot_be_one_is_refused_by_its_value_and_nothing_is_enqueued(key: Any) -> None:
    keyed = tasks.noop.using(concurrency_key=lambda *args: key)  # type: ignore[arg-type]

    with pytest.raises(InvalidArgument, match="concurrency_key of tests.tasks.noop"):
        keyed.enqueue()

    assert not Job.objects.exists()


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2", None, 2**31])
def test_a_limit_that_cannot_be_one_is_refused_by_its_value(limit: Any) -> None:
    keyed = tasks.noop.using(concurrency_key="k", concurrency_limit=lambda *args: limit)  # type: ignore[arg-type]

    with pytest.raises(InvalidArgument, match="concurrency_limit of tests.tasks.noop"):
        keyed.enqueue()


def test_a_callable_that_does_not_take_the_arguments_is_refused_with_them() -> None:
    keyed = tasks.noop.using(concurrency_key=lambda account: account)  # type: ignore[arg-type]

    with pytest.raises(InvalidArgument, match="'surprise'"):
        keyed.enqueue("surprise", "me")


@pytest.mark.parametrize(
    "options",
    [{"concurrency_key": "x" * 256}, {"concurrency_limit": 0}, {"concurrency_key": 5}, {"concurrency_key": 0}],
)
def test_a_key_or_limit_that_cannot_work_is_refused_at_the_declaration(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask, match=next(iter(options))):
        tasks.noop.using(**options)


# Replaced by another call of the same unique key


def replaceable(key: str = "k", **using: Any) -> Any:
    return index.using(unique_key="one", concurrency_key=key, **using)


def test_a_job_that_is_replaced_keeps_its_slot_or_its_place_in_line() -> None:
    ready = int(index.using(unique_key="ready", concurrency_key="k").enqueue(1).id)
    waiting = int(replaceable().enqueue(1).id)

    index.using(unique_key="ready", concurrency_key="k").enqueue(1)
    replaceable().enqueue(2)

    assert states([ready, waiting]) == [READY, BLOCKED]
    assert row(waiting).args == [2]


def test_a_ready_job_that_is_replaced_by_one_for_later_leaves_its_slot() -> None:
    first, second = int(replaceable().enqueue(1).id), enqueue(1)[0]

    replaceable(run_after=HOUR).enqueue(1)

    assert states([first, second]) == [SCHEDULED, READY]


def test_a_scheduled_job_that_is_replaced_by_one_for_now_stands_in_line() -> None:
    enqueue(1)
    later = int(replaceable(run_after=HOUR).enqueue(1).id)

    replaceable().enqueue(1)

    assert states([later]) == [BLOCKED]


def test_a_job_that_is_replaced_by_one_of_another_key_stands_in_its_line() -> None:
    first, second, other = int(replaceable().enqueue(1).id), enqueue(1)[0], enqueue(1, "other")[0]

    replaceable("other").enqueue(1)

    assert states([first, second, other]) == [BLOCKED, READY, READY]
    assert row(first).concurrency_key == "other"


def test_unique_jobs_of_a_key_get_slots_in_bulk_too() -> None:
    keyed = tasks.sync_account.using(unique_key=None)
    calls = [(keyed.using(unique_key=f"{number}"), (1,), {}) for number in (1, 2, 1)]

    results = enqueue_many(calls)

    assert [result.is_new for result in results] == [True, True, False]
    assert states([int(result.id) for result in results[:2]]) == [READY, BLOCKED]


# The end of a job


@pytest.mark.parametrize("verb", ["succeed", "fail", "cancel"])
def test_the_first_in_line_is_ready_when_a_job_of_its_key_ends(verb: str) -> None:
    ids = enqueue(3)

    end(claim()[0], verb)

    assert states(ids)[1:] == [READY, BLOCKED]


@pytest.mark.parametrize("verb", ["retry", "snooze", "postpone"])
def test_a_job_that_waits_for_its_next_attempt_leaves_its_slot_and_stands_in_line_again(verb: str) -> None:
    first, second = enqueue(2)
    end(claim()[0], verb, delay=60.0)
    after_the_attempt = states([first, second])
    Job.objects.filter(pk=first).update(run_after=Now())

    Job.objects.stage_due()
    when_due = states([first, second])
    end(claim()[0])

    assert after_the_attempt == [SCHEDULED, READY]
    assert when_due == [BLOCKED, READY]
    assert states([first, second]) == [READY, SUCCEEDED]


def test_a_job_that_is_given_back_keeps_its_slot() -> None:
    ids = enqueue(2)

    end(claim()[0], "release")

    assert states(ids) == [READY, BLOCKED]
    assert claimed_ids() == ids[:1]


def test_a_job_that_is_rescued_keeps_its_slot_and_one_that_ends_so_leaves_it() -> None:
    again, other = enqueue(2), enqueue(2, "other", max_attempts=1)
    claim()
    end_lease()

    rescue_lost()

    assert states(again) == [READY, BLOCKED]
    assert states(other) == [FAILED, READY]


def test_a_cancelled_job_leaves_its_slot_at_once() -> None:
    first, second, third = enqueue(3)

    Job.objects.filter(pk=first).cancel()

    assert states([first, second, third]) == [CANCELLED, READY, BLOCKED]


def test_a_blocked_job_can_be_cancelled_and_is_then_passed_over() -> None:
    _first, second, third = enqueue(3)

    Job.objects.filter(pk=second).cancel()
    end(claim()[0])

    assert states([second, third]) == [CANCELLED, READY]


def test_all_jobs_of_a_key_can_be_cancelled_at_once() -> None:
    ids = enqueue(5)

    assert Job.objects.filter(pk__in=ids).cancel() == 5

    assert set(states(ids)) == {CANCELLED}


def test_a_deleted_job_leaves_its_slot_with_the_next_look() -> None:
    first, second = enqueue(2)

    Job.objects.filter(pk=first).delete()
    look()

    assert states([second]) == [READY]


def test_a_requeued_job_stands_in_line() -> None:
    first, second = enqueue(2)
    end(claim()[0], "fail")

    Job.objects.filter(pk=first).requeue()

    assert states([first, second]) == [BLOCKED, READY]


def test_a_requeued_job_and_one_that_is_run_now_get_a_free_slot_at_once() -> None:
    again = enqueue(1)
    end(claim()[0], "fail")
    later = enqueue(1, "other", run_after=HOUR)

    Job.objects.filter(pk__in=again).requeue()
    Job.objects.filter(pk__in=later).stage()

    assert states([*again, *later]) == [READY, READY]


def test_a_due_job_gets_a_free_slot_at_once() -> None:
    ids = enqueue(1, run_after=HOUR)
    Job.objects.update(run_after=Now())

    Job.objects.stage_due()

    assert states(ids) == [READY]


def test_a_scheduled_job_that_is_run_now_stands_in_line() -> None:
    now, later = *enqueue(1), *enqueue(1, run_after=HOUR)

    Job.objects.filter(pk=later).stage()

    assert states([now, later]) == [READY, BLOCKED]


def test_jobs_of_a_key_start_by_priority_and_then_in_their_order() -> None:
    ids = [*enqueue(3), *enqueue(1, priority=10), *enqueue(1)]
    ran = []

    for _ in ids:
        job = claim()[0]
        ran.append(job.id)
        end(job)

    assert ran == [ids[0], ids[3], ids[1], ids[2], ids[4]]


def test_no_key_waits_longer_than_its_turn() -> None:
    a, b, plain = enqueue(4, "a"), enqueue(2, "b"), [int(tasks.noop.enqueue().id)]
    ran = []

    for _ in range(7):
        job = claim(limit=1)[0]
        ran.append(job.id)
        end(job)

    assert ran == [a[0], b[0], plain[0], a[1], b[1], a[2], a[3]]


def test_jobs_that_get_slots_together_start_in_their_order() -> None:
    ids = enqueue(6)

    Limit.objects.update(override=6)
    look()

    assert claimed_ids() == ids


def test_only_a_blocked_job_is_admitted_and_only_a_ready_one_is_blocked() -> None:
    running = enqueue(1, "a")
    claim()
    ready, blocked = enqueue(1, "b"), enqueue(1, "a")
    ids = [*running, *ready, *blocked]

    assert (Job.objects.admit([*running, *ready]), Job.objects.block([*running, *blocked])) == (0, 0)
    assert states(ids) == [RUNNING, READY, BLOCKED]


# Limits that change


def test_a_larger_limit_of_a_newer_job_counts_for_all_of_the_key() -> None:
    old = enqueue(3)

    new = enqueue(1, limit=3)

    look()
    assert states([*old, *new]) == [READY, READY, READY, BLOCKED]


def test_a_smaller_limit_takes_the_slots_of_the_last_ready_jobs() -> None:
    old = enqueue(4, limit=4)

    new = enqueue(1, limit=2)

    assert states([*old, *new]) == [READY, READY, BLOCKED, BLOCKED, BLOCKED]


def test_a_smaller_limit_leaves_running_jobs_alone_and_admits_none_before_enough_have_ended() -> None:
    ids = enqueue(5, limit=3)
    running = claim()
    Limit.objects.update(override=1)
    look()

    for job in running:
        end(job)
        if job is running[1]:
            assert states(ids)[3:] == [BLOCKED, BLOCKED]

    assert states(ids) == [SUCCEEDED] * 3 + [READY, BLOCKED]


def test_what_an_operator_says_counts_until_it_is_taken_back() -> None:
    ids = enqueue(3, limit=1)
    Limit.objects.override("k", 2)
    ids += enqueue(1, limit=1)
    with_override = states(ids)

    Limit.objects.override("k", None)

    assert with_override == [READY, READY, BLOCKED, BLOCKED]
    assert states(ids) == [READY, BLOCKED, BLOCKED, BLOCKED]


def test_an_override_of_none_at_all_stops_a_key() -> None:
    Limit.objects.override("k", 0)

    assert states(enqueue(1)) == [BLOCKED]


@pytest.mark.parametrize(("key", "limit"), [("", 1), ("x" * 256, 1), ("k", -1), ("k", True), ("k", 1.5), ("k", 2**31)])
def test_an_override_that_cannot_be_one_is_refused_and_changes_nothing(key: str, limit: Any) -> None:
    with pytest.raises(InvalidOption):
        Limit.objects.override(key, limit)

    assert not Limit.objects.exists()


def test_an_older_job_that_is_tried_again_does_not_bring_its_old_limit_back() -> None:
    enqueue(1, limit=1)
    end(claim()[0], "retry", delay=0.0)
    enqueue(1, limit=3)
    Job.objects.filter(state=SCHEDULED).update(run_after=Now())

    Job.objects.stage_due()

    assert Limit.objects.get().limit == 3


def test_the_row_of_a_key_is_forgotten_when_nobody_has_used_it_for_an_hour_and_made_anew() -> None:
    enqueue(1, "busy")
    enqueue(1, "idle")
    end(next(job for job in claim() if job.concurrency_key == "idle"))
    Limit.objects.create(key="kept", limit=1, override=2)
    Limit.objects.update(used_at=from_now(-2 * HOUR))

    forget_unused(Job.objects.all())

    assert set(Limit.objects.values_list("key", flat=True)) == {"busy", "kept"}
    assert states(enqueue(2, "idle")) == [READY, BLOCKED]


def test_the_row_of_a_key_that_was_used_within_the_hour_is_kept() -> None:
    enqueue(1)
    Limit.objects.update(used_at=from_now(-2 * HOUR))
    end(claim()[0])
    enqueue(1)
    end(claim()[0])

    forget_unused(Job.objects.all())

    assert Limit.objects.exists()


def test_a_key_whose_row_has_gone_is_found_by_the_leader() -> None:
    ids = enqueue(3, limit=2)
    Limit.objects.all().delete()
    Job.objects.filter(pk=ids[0]).delete()

    look()

    assert states(ids[1:]) == [READY, READY]


def test_the_leader_comes_to_every_key_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_jobs.models.slot_round.KEYS_AT_ONCE", 2)
    monkeypatch.setattr("django_jobs.models.slot_round.LONGEST_LOOK", 0)
    ids = [pk for key in "abcde" for pk in enqueue(2, key)]
    Job.objects.ready().delete()
    leader = Round()

    for _ in range(3):
        leader.look(Job.objects.all())

    assert Job.objects.ready().count() == 5
    assert set(Job.objects.ready().values_list("pk", flat=True)) == set(ids[1::2])


def test_the_leader_looks_at_many_pages_of_keys_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_jobs.models.slot_round.KEYS_AT_ONCE", 2)
    monkeypatch.setattr("django_jobs.models.slot_round.LONGEST_LOOK", 60)
    ids = [pk for key in "abcde" for pk in enqueue(2, key)]
    Job.objects.ready().delete()

    look()

    assert states(ids[1::2]) == [READY] * 5


def test_keys_without_a_row_are_found_beside_one_with_many_jobs_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_jobs.models.slot_round.KEYS_AT_ONCE", 3)
    many, one = enqueue(6, "a"), enqueue(2, "b")
    Job.objects.ready().delete()
    Limit.objects.all().delete()

    look()

    assert states([*many, *one]) == [READY, BLOCKED, BLOCKED, BLOCKED, BLOCKED, READY]


# Pauses


def test_ready_jobs_of_a_paused_queue_give_their_slots_to_jobs_of_others() -> None:
    paused, other = enqueue(2, queue_name="mail"), enqueue(1)
    Queue.objects.declare("mail")

    Queue.objects.pause("mail")

    assert states([*paused, *other]) == [BLOCKED, BLOCKED, READY]


def test_a_job_that_comes_back_to_a_paused_queue_gives_its_slot_away_with_the_next_look() -> None:
    Queue.objects.declare("mail")
    paused, other = enqueue(1, queue_name="mail"), enqueue(1)
    job = claim(queues=["mail"])[0]
    Queue.objects.pause("mail")
    end(job, "release")

    look()

    assert states([*paused, *other]) == [BLOCKED, READY]


def test_the_slots_of_paused_jobs_are_given_to_others_before_the_leader_comes_to_their_keys() -> None:
    paused, other = enqueue(1, queue_name="mail"), enqueue(1)
    Queue.objects.declare("mail")
    Queue.objects.pause("mail")

    give_back_paused(Job.objects.all())

    assert states([*paused, *other]) == [BLOCKED, READY]


def test_a_new_job_of_a_paused_queue_takes_no_slot() -> None:
    Queue.objects.declare("mail")
    Queue.objects.pause("mail")

    assert states(enqueue(1, queue_name="mail")) == [BLOCKED]


def test_jobs_of_a_resumed_queue_are_admitted_again_in_their_order() -> None:
    ids = enqueue(3, queue_name="mail")
    Queue.objects.declare("mail")
    Queue.objects.pause("mail")
    paused = states(ids)

    Queue.objects.resume("mail")

    assert paused == [BLOCKED] * 3
    assert states(ids) == [READY, BLOCKED, BLOCKED]


def test_the_end_of_a_pause_that_comes_by_itself_admits_jobs_too() -> None:
    ids = enqueue(1, queue_name="mail")
    Queue.objects.declare("mail")
    Queue.objects.pause("mail", resume_at=row(ids[0]).enqueued_at + HOUR)
    look()
    paused = states(ids)

    Queue.objects.filter(name="mail").update(resume_at=Now())
    look()

    assert (paused, states(ids)) == ([BLOCKED], [READY])


# In the hands of an exchange


def test_an_exchange_admits_and_claims_the_next_job_when_one_ends() -> None:
    ids = enqueue(3)
    with Hand() as hand:
        hand.turn()

        for pk in ids:
            job = hand.begin()
            assert job.id == pk
            hand.end(job)
            hand.settle()

    assert set(states(ids)) == {SUCCEEDED}


def test_a_burst_runs_all_jobs_of_a_key_before_it_ends() -> None:
    ids = enqueue(3)
    with Hand(burst=True) as hand:
        for _ in ids:
            hand.settle()
            assert hand.calls == []
            hand.end(hand.begin())
        hand.settle()

        assert hand.calls == ["nothing left"]


def test_tests_run_jobs_whose_slot_came_free_without_the_end_of_a_job() -> None:
    paused, behind = enqueue(1, "paused", queue_name="mail"), enqueue(2, "behind")
    Queue.objects.declare("mail")
    Queue.objects.pause("mail")
    look()
    Queue.objects.resume("mail")
    Job.objects.filter(pk=behind[0]).delete()

    assert run_jobs() == 2
    assert states([*paused, behind[1]]) == [SUCCEEDED, SUCCEEDED]


def test_jobs_of_a_key_are_run_by_tests_too() -> None:
    ids = enqueue(3)

    assert run_jobs() == 3

    assert set(states(ids)) == {SUCCEEDED}


# What it costs


def test_a_full_key_is_outside_of_the_index_of_ready_jobs() -> None:
    enqueue(50)
    free = [int(tasks.noop.enqueue().id) for _ in range(2)]

    assert len(claimed_ids(limit=10)) == 3
    assert set(states(free)) == {RUNNING}


def test_jobs_without_a_key_ask_for_no_limit(django_assert_num_queries: Any) -> None:
    with exclusive(), django_assert_num_queries(1):
        tasks.noop.enqueue()


@pytest.mark.django_db(transaction=True)
def test_a_loop_of_enqueues_looks_once_more_at_its_key_and_not_once_for_each() -> None:
    enqueue(1)

    with transaction.atomic():
        waiting = enqueue(5)
        assert len(connection.run_on_commit) <= 2
        Job.objects.ready().delete()

    assert states(waiting) == [READY, BLOCKED, BLOCKED, BLOCKED, BLOCKED]


@pytest.mark.django_db(transaction=True)
def test_the_limit_of_the_last_enqueue_counts_after_a_transaction_that_could_not_write_it() -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("Rows cannot be locked here: of two that write one waits for the other.")
    enqueue(3)
    with Rival() as rival, transaction.atomic():
        rival.begin()
        rival.run(lambda: list(Limit.objects.filter(key="k").select_for_update()))
        for limit in (2, 3, 2):
            enqueue(1, limit=limit)
        rival.commit()

    assert Limit.objects.get().limit == 2


def test_the_state_of_a_job_tells_that_it_is_blocked() -> None:
    enqueue(1)

    result = tasks.noop.using(concurrency_key="k").enqueue()

    assert state_of(result) == BLOCKED
