"""Claiming: the order, the lease, and two workers at once."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_jobs.exceptions import LeaseLost
from django_jobs.models import Job, Queue, Worker
from django_jobs.models.compiled import can_compile
from django_jobs.models.database import exclusive
from django_jobs.models.rescue import rescue_lost
from django_jobs.outcomes import Failure, PastAttempt
from django_jobs.states import JobState

from . import tasks
from .rivals import Rival, let_pass, wait_until_blocked
from .rows import HOUR, claim, end_lease, outcome, row, start_worker, state_of, values, write

pytestmark = pytest.mark.django_db

needs_row_locks = pytest.mark.skipif(
    "not connection.features.has_select_for_update_skip_locked",
    reason="Rows cannot be locked here: one claim waits for the other.",
)


@pytest.fixture(autouse=True)
def worker() -> str:
    return start_worker()


def enqueued(*priorities: int, queue_name: str = "default") -> list[int]:
    return [int(tasks.noop.using(priority=p, queue_name=queue_name).enqueue().id) for p in priorities]


# Order


def test_the_larger_priority_comes_first_and_then_the_older_job() -> None:
    low, first, high, second = enqueued(-5, 0, 90, 0)

    assert [job.id for job in claim()] == [high, first, second, low]


def test_jobs_of_one_bulk_insert_keep_their_order() -> None:
    tasks.noop.enqueue_many([((number,), {}) for number in range(300)])

    taken = [claim(limit=1)[0].args[0] for _ in range(50)] + [job.args[0] for job in claim(limit=250)]

    assert taken == list(range(300))


def test_the_order_is_that_of_the_ids_wherever_the_rows_lie() -> None:
    ids = enqueued(*[0] * 20)
    # A row that is written again is stored behind the others.
    for pk in reversed(ids):
        Job.objects.filter(pk=pk).update(meta={"touched": True})

    with CaptureQueriesContext(connection) as captured:
        taken = [job.id for job in claim(limit=20)]

    assert taken == ids
    # An index that is walked in order hides it where the statement does not ask for the order.
    assert any(
        re.search(
            r"ORDER BY \S+ DESC, COALESCE\(\S+position\W+, \S+id\W+\) ASC|ORDER BY \S+ DESC, \S+ ASC", query["sql"]
        )
        for query in captured.captured_queries
    )


def test_the_order_holds_across_queues() -> None:
    a = enqueued(0, 10, queue_name="a")
    b = enqueued(0, 10, 20, queue_name="b")

    taken = [job.id for job in claim(queues=["a", "b"])]

    assert taken == [b[2], a[1], b[1], a[0], b[0]]


@pytest.mark.parametrize("names", [["a", "b"], ["b", "a"]])
def test_queues_take_turns_among_jobs_of_one_priority(names: list[str]) -> None:
    a = enqueued(0, 0, 0, 0, 0, queue_name="a")
    b = enqueued(1, 0, 0, queue_name="b")

    taken = {job.id for job in claim(limit=4, queues=names)}

    last = {"a": a[1], "b": b[2]}[names[0]]
    assert taken == {b[0], a[0], b[1], last}


def test_a_limit_takes_what_comes_first_across_queues_and_leaves_the_rest_ready() -> None:
    a = enqueued(0, 10, queue_name="a")
    b = enqueued(5, queue_name="b")

    taken = [job.id for job in claim(limit=2, queues=["a", "b"])]

    assert taken == [a[1], b[0]]
    assert row(a[0]).state == JobState.READY
    assert [job.id for job in claim(queues=["a", "b"])] == [a[0]]


def test_only_the_named_queues_are_claimed_from() -> None:
    enqueued(100, queue_name="other")
    mine = enqueued(0, queue_name="mine")

    assert [job.id for job in claim(queues=["mine"])] == mine


def test_what_is_not_ready_is_not_claimed() -> None:
    tasks.noop.using(run_after=HOUR).enqueue()

    assert claim() == []


def test_nothing_is_claimed_from_no_queue() -> None:
    enqueued(0)

    assert claim(queues=[]) == []


# What a claimed job is


def test_a_claimed_job_is_all_that_running_it_needs() -> None:
    result = tasks.add.using(priority=3, meta={"a": 1}).enqueue(1, b=[2])

    job = claim()[0]

    stored = row(result.id)
    assert (job.id, job.task_path, job.queue_name, job.priority) == (stored.pk, "tests.tasks.add", "default", 3)
    assert (job.args, job.kwargs, job.meta) == ([1], {"b": [2]}, {"a": 1})
    assert (job.attempt, job.max_attempts, job.worker_id, job.backend) == (1, 3, "w1", "default")
    assert (job.enqueued_at, job.history) == (stored.enqueued_at, ())


def test_the_row_says_who_runs_the_job_since_when_and_for_which_time() -> None:
    enqueued(0)

    job = claim()[0]

    stored = row(job.id)
    assert (stored.state, stored.worker_id, stored.attempt) == (JobState.RUNNING, "w1", 1)
    # The candidates and the claim are two statements, each with its own now.
    assert abs(stored.started_at - job.started_at) < timedelta(seconds=1)
    assert stored.started_at == stored.last_attempted_at


def test_times_are_the_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    enqueued(0)
    monkeypatch.setattr(timezone, "now", lambda: datetime(2001, 1, 1, tzinfo=UTC))

    job = claim()[0]

    assert abs(row(job.id).started_at - datetime.now(UTC)) < timedelta(hours=1)


def test_a_job_that_is_tried_again_brings_its_history_and_loses_its_progress() -> None:
    enqueued(0)
    first = claim()[0]
    Job.objects.filter(pk=first.id).update(progress={"done": 1})
    write(outcome(first, "retry", failure=Failure("builtins.ValueError", "bad", "trace", "f")))
    Job.objects.all().stage()
    second = claim()[0]
    write(outcome(second, "release"))

    third = claim()[0]

    assert (third.attempt, third.started_at) == (3, row(third.id).started_at)
    assert third.history == (
        PastAttempt("w1", "failed", "builtins.ValueError", "trace"),
        PastAttempt("w1", "interrupted", "", ""),
    )
    assert row(third.id).progress is None


def test_a_claim_of_fresh_jobs_is_one_statement_or_where_rows_cannot_be_locked_two() -> None:
    enqueued(*range(20))

    with CaptureQueriesContext(connection) as captured, exclusive():
        Job.objects.claim("w1", ["default"], 10)

    statements = [query["sql"].split()[0] for query in captured.captured_queries]
    expected = ["WITH"] if can_compile(connection) else ["SELECT", "UPDATE"]
    assert [word for word in statements if word not in ("SAVEPOINT", "RELEASE", "BEGIN")] == expected


# The lease


def end_by_stopping() -> None:
    Worker.objects.mark_stopped("w1")


def end_by_rescue() -> None:
    end_lease()
    rescue_lost()


def end_by_deleting() -> None:
    Worker.objects.all().delete()


@pytest.mark.parametrize("end", [end_lease, end_by_stopping, end_by_rescue, end_by_deleting])
def test_a_worker_whose_lease_has_ended_claims_nothing(end: Any) -> None:
    first, second = enqueued(0, 0)
    before = (values(first), values(second))
    end()

    with pytest.raises(LeaseLost, match="The lease of worker 'w1' has ended"):
        claim()

    assert (values(first), values(second)) == before


def test_without_anything_to_claim_an_ended_lease_goes_unnoticed() -> None:
    end_lease()

    assert claim() == []


# Paused queues


def test_a_paused_queue_is_not_claimed_from_and_others_are() -> None:
    enqueued(0, queue_name="held")
    others = enqueued(0, queue_name="open")
    Queue.objects.declare("held")
    Queue.objects.pause("held")

    assert [job.id for job in claim(queues=["held", "open"])] == others


# Two at once


@pytest.mark.django_db(transaction=True)
@needs_row_locks
def test_jobs_that_another_worker_is_just_taking_are_passed_over() -> None:
    start_worker("w2")
    ids = enqueued(0, 0, 0, 0)
    with Rival() as rival:
        rival.begin()
        theirs = rival.run(Job.objects.claim, "w2", ["default"], 2)

        ours = claim()

    assert [job.id for job in theirs] == ids[:2]
    assert [job.id for job in ours] == ids[2:]


@pytest.mark.django_db(transaction=True)
@needs_row_locks
def test_a_claim_from_several_queues_hides_no_more_jobs_than_it_takes() -> None:
    start_worker("w2")
    queues = ["a", "b", "c"]
    for name in queues:
        enqueued(*[0] * 10, queue_name=name)
    with Rival() as rival:
        rival.begin()
        theirs = rival.run(Job.objects.claim, "w2", queues, 10)

        ours = claim(limit=10, queues=queues)

    assert len(theirs) == len(ours) == 10
    assert not {job.id for job in theirs} & {job.id for job in ours}


@pytest.mark.django_db(transaction=True)
@needs_row_locks
def test_jobs_that_a_rolled_back_claim_had_locked_are_ready_again() -> None:
    start_worker("w2")
    ids = enqueued(0, 0)
    with Rival() as rival:
        rival.begin()
        rival.run(Job.objects.claim, "w2", ["default"], 2)
        rival.run(transaction.set_rollback, True)

    assert [job.id for job in claim()] == ids


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_share_the_jobs_and_take_none_twice() -> None:
    start_worker("w2")
    ids = enqueued(*[0] * 10)
    with Rival() as rival, Rival() as second:
        rival.begin()
        theirs = rival.run(Job.objects.claim, "w2", ["default"], 5)
        ours = second.start(claim, "w1", 5)
        let_pass(ours)
        rival.commit()
        taken = [job.id for job in [*theirs, *ours.result(20)]]

    assert sorted(taken) == ids
    assert Job.objects.held_by("w1").count() == Job.objects.held_by("w2").count() == 5


@pytest.mark.django_db(transaction=True)
def test_a_claim_that_meets_a_cancellation_takes_what_was_not_cancelled() -> None:
    cancelled, kept = enqueued(0, 0)
    with Rival() as rival, Rival() as second:
        rival.begin()
        rival.run(Job.objects.filter(pk=cancelled).cancel)
        claiming = second.start(claim)
        let_pass(claiming)
        rival.commit()
        taken = claiming.result(20)

    assert [job.id for job in taken] == [kept]
    assert row(cancelled).state == JobState.CANCELLED


@pytest.mark.django_db(transaction=True)
def test_a_cancellation_that_meets_a_claim_asks_the_running_job_to_stop() -> None:
    (pk,) = enqueued(0)
    with Rival() as rival, Rival() as second:
        rival.begin()
        rival.run(Job.objects.claim, "w1", ["default"], 1)
        cancelling = second.start(Job.objects.filter(pk=pk).cancel)
        wait_until_blocked()
        rival.commit()
        moved = cancelling.result(20)

    assert moved == 1
    assert row(pk).state == JobState.RUNNING
    assert row(pk).cancel_requested_at is not None


# The transaction of a claim


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.features.has_select_for_update", reason="Rows can be locked here.")
@pytest.mark.parametrize("connected", [True, False])
def test_where_rows_cannot_be_locked_the_write_lock_is_taken_at_the_start(connected: bool) -> None:
    if not connected:
        connection.close()

    with CaptureQueriesContext(connection) as captured, exclusive():
        Job.objects.count()

    assert captured.captured_queries[0]["sql"] == "BEGIN IMMEDIATE"
    assert connection.transaction_mode is None


def test_the_queues_with_ready_jobs_are_found_without_a_scan() -> None:
    enqueued(0, 0, queue_name="b")
    enqueued(0, queue_name="a")
    tasks.noop.using(run_after=HOUR, queue_name="later").enqueue()

    assert list(Job.objects.ready_queues()) == ["a", "b"]


def test_a_job_that_was_claimed_is_running() -> None:
    (pk,) = enqueued(0)

    job = claim()[0]

    assert (job.id, state_of(job)) == (pk, JobState.RUNNING)
