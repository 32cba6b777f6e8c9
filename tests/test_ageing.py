"""Ageing: jobs that wait get a larger priority, a step at a time. Their waiting is written into the rows: nothing sleeps."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_jobs.models import Job, Queue, ageing
from django_jobs.models.ageing import raise_waiting
from django_jobs.models.database import from_now, lock_rows
from django_jobs.notifications import can_notify
from django_jobs.states import JobState

from . import tasks
from .exchanges import enqueue
from .rivals import Rival
from .rows import HOUR, claim, job_in, outcome, row, start_worker, write

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)

needs_row_locks = pytest.mark.skipif(
    "not connection.features.has_select_for_update_skip_locked",
    reason="Rows cannot be locked here: one transaction waits for the other.",
)


@pytest.fixture(autouse=True)
def queue() -> Queue:
    """Jobs of the default queue get ten more after each minute."""
    return Queue.objects.declare("default", raise_after=60, raise_by=10)


def waiting(since: timedelta, priority: int = 0, **using: Any) -> int:
    """Return the id of a ready job that has been due for so long."""
    [job_id] = enqueue(1, priority=priority, **using)
    let_wait([job_id], since)
    return job_id


def let_wait(ids: Collection[int], since: timedelta) -> None:
    Job.objects.filter(pk__in=ids).update(enqueued_at=from_now(-since))


def priority_of(job_id: int) -> int:
    return row(job_id).priority


def steps_of(job_id: int) -> tuple[int, int]:
    """Return the priority of a job and how often it was raised."""
    job = row(job_id)
    return job.priority, job.raised


# When


def test_a_job_that_has_waited_long_enough_is_raised_and_others_are_not() -> None:
    long, short = waiting(MINUTE), waiting(MINUTE - timedelta(seconds=30))

    assert raise_waiting() == 1

    assert (steps_of(long), steps_of(short)) == ((10, 1), (0, 0))


def test_each_further_step_takes_as_long_again() -> None:
    job = waiting(MINUTE)
    raise_waiting()
    too_soon = raise_waiting()
    let_wait([job], 2 * MINUTE - timedelta(seconds=30))
    still_too_soon = raise_waiting()
    let_wait([job], 2 * MINUTE)

    assert (too_soon, still_too_soon, raise_waiting()) == (0, 0, 1)
    assert steps_of(job) == (20, 2)


def test_a_job_that_has_waited_for_very_long_makes_one_step_in_each_pass(queue: Queue) -> None:
    Queue.objects.update(raise_by=1)
    # Each would be met again on its next priority if that came later in the pass.
    jobs = {priority: waiting(HOUR, priority) for priority in (-2, -1, 0, 1, 2)}

    raise_waiting()

    assert {priority: priority_of(job) for priority, job in jobs.items()} == {-2: -1, -1: 0, 0: 1, 1: 2, 2: 3}


def test_it_counts_from_when_the_job_was_due() -> None:
    scheduled = waiting(HOUR)
    Job.objects.filter(pk=scheduled).update(run_after=from_now(-MINUTE / 2))
    overdue = waiting(timedelta())
    Job.objects.filter(pk=overdue).update(run_after=from_now(-MINUTE))

    raise_waiting()

    assert (priority_of(scheduled), priority_of(overdue)) == (0, 10)


@pytest.mark.parametrize("verb", ["retry", "snooze", "fail"])
def test_it_counts_anew_when_the_job_waits_again(verb: str) -> None:
    start_worker()
    job = waiting(HOUR)
    for _ in range(3):
        raise_waiting()
    write(outcome(claim()[0], verb))
    if verb == "fail":
        Job.objects.filter(pk=job).requeue()
    else:
        Job.objects.stage_due()
    too_soon = raise_waiting()
    Job.objects.filter(pk=job).update(run_after=from_now(-MINUTE))

    assert (too_soon, raise_waiting()) == (0, 1)
    assert steps_of(job) == (40, 1)


def test_a_change_of_the_queue_counts_from_the_next_pass_on(queue: Queue) -> None:
    job = waiting(MINUTE)
    Queue.objects.update(raise_after=90)
    assert raise_waiting() == 0
    Queue.objects.update(raise_after=30, raise_by=3)
    assert raise_waiting() == 1
    Queue.objects.update(raise_after=None)
    let_wait([job], HOUR)

    assert raise_waiting() == 0
    assert steps_of(job) == (3, 1)


def test_a_timedelta_will_do_for_the_time() -> None:
    Queue.objects.declare("default", upsert=True, raise_after=HOUR)
    jobs = waiting(HOUR - MINUTE), waiting(HOUR)

    raise_waiting()

    assert [priority_of(job) for job in jobs] == [0, 10]


# How far


@pytest.mark.parametrize(("before", "by", "after"), [(85, 10, 95), (95, 10, 100), (99, 1, 100), (-100, 32767, 100)])
def test_no_job_is_raised_above_100(before: int, by: int, after: int) -> None:
    Queue.objects.update(raise_by=by)
    job = waiting(MINUTE, before)

    raise_waiting()

    assert steps_of(job) == (after, 1)


def test_a_job_at_100_stays_as_it_is() -> None:
    job = waiting(HOUR, 100)

    assert raise_waiting() == 0
    assert steps_of(job) == (100, 0)


def test_every_job_comes_to_100_in_the_end() -> None:
    jobs = [waiting(HOUR, priority) for priority in (-100, -1, 0, 33)]

    passes = 0
    while raise_waiting():
        passes += 1

    assert passes == 20
    assert [steps_of(job) for job in jobs] == [(100, 20), (100, 11), (100, 10), (100, 7)]


# Whom


def test_a_queue_that_does_not_ask_for_it_is_left_alone() -> None:
    Queue.objects.declare("other")
    others = [waiting(HOUR, queue_name=name) for name in ("other", "undeclared")]
    mine = waiting(HOUR)

    assert raise_waiting() == 1
    assert [steps_of(job) for job in (*others, mine)] == [(0, 0), (0, 0), (10, 1)]


def test_each_queue_has_its_own_rule() -> None:
    Queue.objects.declare("slow", raise_after=3600, raise_by=50)
    jobs = waiting(MINUTE), waiting(MINUTE, queue_name="slow"), waiting(HOUR, queue_name="slow")

    raise_waiting()

    assert [priority_of(job) for job in jobs] == [10, 0, 50]


@pytest.mark.parametrize("state", [state for state in JobState if state != JobState.READY])
def test_only_ready_jobs_wait(state: JobState) -> None:
    job = job_in(state, queue_name="default")
    Job.objects.filter(pk=job.pk).update(enqueued_at=from_now(-HOUR), run_after=None)

    assert raise_waiting() == 0
    assert (row(job.pk).state, steps_of(job.pk)) == (state, (0, 0))


def test_a_paused_queue_raises_nothing_until_its_pause_ends() -> None:
    job = waiting(HOUR)
    Queue.objects.pause("default")
    assert raise_waiting() == 0
    Queue.objects.resume("default")

    assert raise_waiting() == 1
    assert priority_of(job) == 10


@pytest.mark.parametrize(
    "odd", [{"raise_after": 0}, {"raise_after": -60}, {"raise_after": 1e300}, {"raise_after": 1e-300}, {"raise_by": 0}]
)
def test_a_queue_with_an_odd_row_spoils_nobody_elses_waiting(odd: dict[str, Any]) -> None:
    Queue.objects.declare("a odd", raise_after=60)
    Queue.objects.filter(name="a odd").update(**odd)
    waiting(HOUR, queue_name="a odd")
    mine = waiting(HOUR)

    raise_waiting()

    assert priority_of(mine) == 10


@pytest.mark.parametrize("moment", ["infinity", "-infinity"])
def test_a_job_with_an_odd_row_spoils_nobody_elses_waiting(moment: str) -> None:
    odd, often, mine = waiting(HOUR), waiting(HOUR), waiting(HOUR)
    Job.objects.filter(pk=often).update(raised=32767)
    Queue.objects.update(raise_after=10 * 365 * 86400)
    let_wait([mine], timedelta(days=5000))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_jobs_job SET run_after = %s WHERE id = %s", [moment, odd])

    raise_waiting()

    assert (priority_of(often), priority_of(mine)) == (0, 10)


# The order


def test_a_raised_job_keeps_its_place_in_time() -> None:
    start_worker()
    old, new = waiting(MINUTE, 0), waiting(timedelta(), 10)
    between = waiting(MINUTE, 0)

    raise_waiting()

    assert [job.id for job in claim()] == [old, new, between]


def test_a_job_that_had_to_wait_for_a_slot_keeps_its_place_too() -> None:
    start_worker()
    first, second = waiting(MINUTE, 0), waiting(timedelta(), 10)
    Job.objects.filter(pk=first).update(position=second + 1)

    raise_waiting()

    assert row(first).position == second + 1
    assert [job.id for job in claim()] == [second, first]


def test_a_steady_stream_of_urgent_jobs_does_not_starve_the_others() -> None:
    start_worker()
    patient = waiting(timedelta(), 0)
    claimed: list[int] = []
    minutes = 0

    while patient not in claimed:
        minutes += 1
        assert minutes <= 10
        # A minute in which more urgent jobs come than are run.
        enqueue(2, priority=50)
        let_wait([patient], minutes * MINUTE)
        raise_waiting()
        claimed += [job.id for job in claim(limit=1)]

    # Five steps bring it among them, where it is the oldest.
    assert minutes == 5


def test_without_the_rule_it_would_starve() -> None:
    start_worker()
    Queue.objects.update(raise_after=None)
    patient = waiting(HOUR, 0)
    for _ in range(20):
        enqueue(2, priority=50)
        raise_waiting()

        assert [job.id for job in claim(limit=1)] != [patient]


# What it costs


def test_few_at_a_time_are_raised_of_each_priority_and_the_first_are_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ageing, "RAISED_AT_ONCE", 2)
    low, high = [waiting(HOUR, -50) for _ in range(3)], [waiting(HOUR, 50) for _ in range(3)]

    first, second = raise_waiting(), raise_waiting()

    assert (first, second) == (4, 6)
    assert [priority_of(job) for job in (*low, *high)] == [-30, -30, -40, 70, 70, 60]


def test_those_behind_many_that_were_just_raised_are_raised_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ageing, "RAISED_AT_ONCE", 2)
    raised, others = [waiting(MINUTE) for _ in range(5)], [waiting(MINUTE) for _ in range(2)]
    Job.objects.filter(pk__in=raised).update(raised=1)

    raise_waiting()

    assert [priority_of(job) for job in (*raised, *others)] == [0] * 5 + [10] * 2


def test_a_pass_looks_at_the_first_of_each_priority_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ageing, "LOOKED_AT", 2)
    new, behind = [waiting(timedelta()) for _ in range(2)], waiting(HOUR)

    assert raise_waiting() == 0
    Job.objects.filter(pk__in=new).delete()
    assert raise_waiting() == 1
    assert priority_of(behind) == 10


def test_where_no_queue_asks_for_it_a_pass_is_one_query() -> None:
    Queue.objects.update(raise_after=None)
    waiting(HOUR)

    with CaptureQueriesContext(connection) as queries:
        raise_waiting()

    assert len(queries) == 1


def test_where_nobody_has_waited_too_long_nothing_is_locked_or_written() -> None:
    for priority in (0, 10, 20):
        waiting(timedelta(), priority)

    with CaptureQueriesContext(connection) as queries:
        raise_waiting()

    # The rules, and for each priority one look for it and one at its first jobs; then that there is none.
    assert len(queries) == 1 + 3 * 2 + 1
    assert all(query["sql"].startswith("SELECT") and "FOR NO KEY" not in query["sql"] for query in queries)


def test_a_pass_reads_along_the_ready_index() -> None:
    tasks.noop.enqueue_many([((), {})] * 3000)
    Job.objects.update(enqueued_at=from_now(-MINUTE / 2))
    late = waiting(HOUR, 7)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE django_jobs_job")

    with CaptureQueriesContext(connection) as queries:
        raise_waiting()

    assert priority_of(late) == 17
    looks = [query["sql"] for query in queries if "django_jobs_job" in query["sql"] and " IN (" not in query["sql"]]
    assert len(looks) == 5
    for look in looks:
        plan = plan_of(look)
        assert "django_jobs_ready" in plan, plan
        assert "Seq Scan" not in plan, plan
        assert "TEMP B-TREE" not in plan, plan
        assert "Sort" not in plan, plan


def plan_of(statement: str) -> str:
    with connection.cursor() as cursor:
        if connection.features.has_select_for_update:
            # For few rows, and for most of a small table, the planner may as well read and sort them: the index must do.
            cursor.execute(
                "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"
            )
        cursor.execute(f"{connection.ops.explain_query_prefix()} {statement}")
        return "\n".join(str(line) for line in cursor.fetchall())


# Others at the same time


@needs_row_locks
@pytest.mark.django_db(transaction=True)
def test_a_job_that_somebody_has_locked_is_left_out() -> None:
    locked, free = waiting(HOUR), waiting(HOUR)
    with Rival() as other:
        other.begin()
        other.run(lambda: list(lock_rows(Job.objects.filter(pk=locked))))

        assert raise_waiting() == 1

    assert [priority_of(job) for job in (locked, free)] == [0, 10]


@needs_row_locks
@pytest.mark.django_db(transaction=True)
def test_a_claim_does_not_wait_for_jobs_that_are_being_raised() -> None:
    start_worker()
    raised, fresh = waiting(HOUR), waiting(timedelta())
    with Rival() as other:
        other.begin()
        assert other.run(raise_waiting) == 1
        with Rival() as worker:
            taken = [job.id for job in worker.run(claim)]

    assert taken == [fresh]
    assert priority_of(raised) == 10


@pytest.mark.django_db(transaction=True)
def test_workers_that_found_them_locked_are_told_to_look_again() -> None:
    if not can_notify(connection):
        pytest.skip("This database sends no notifications: workers poll.")
    waiting(HOUR)
    with CaptureQueriesContext(connection) as queries:
        raise_waiting()
    Queue.objects.update(raise_after=None)
    with CaptureQueriesContext(connection) as queries_in_vain:
        raise_waiting()

    told = [[query["sql"] for query in each if "ready default" in query["sql"]] for each in (queries, queries_in_vain)]
    assert [len(hints) for hints in told] == [1, 0]


@needs_row_locks
@pytest.mark.django_db(transaction=True)
def test_two_passes_at_once_raise_a_job_once() -> None:
    job = waiting(HOUR)
    raised_by_other: list[int] = []
    with Rival() as other:

        def let_the_other_be_first(execute: Any, sql: str, *more: Any) -> Any:
            # This pass has seen that the job has waited too long, and is about to lock it.
            if "FOR NO KEY UPDATE" in sql and not raised_by_other:
                raised_by_other.append(other.run(raise_waiting))
            return execute(sql, *more)

        with connection.execute_wrapper(let_the_other_be_first):
            raised = raise_waiting()

    assert (raised_by_other, raised) == ([1], 0)
    assert steps_of(job) == (10, 1)
