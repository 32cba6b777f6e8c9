"""Unique jobs that several sessions enqueue, claim and requeue at once: the index decides, and nobody fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections, transaction

from django_jobs.exceptions import DuplicateJob
from django_jobs.models import Job, insert
from django_jobs.models.database import from_now
from django_jobs.states import JobState

from . import tasks
from .rivals import Rival, wait_until_blocked
from .rows import HOUR, claim, job_in, outcome, row, start_worker, state_of, write
from .unique_tasks import index, remind, ship, ship_latest, ship_once

pytestmark = pytest.mark.django_db(transaction=True)
THREADS = 20


def at_once(call: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """Make the call in so many threads, each with a connection of its own, at the same moment; return the answers."""
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        try:
            connection.ensure_connection()
            if not connection.features.has_select_for_update:
                with connection.cursor() as cursor:
                    cursor.execute("PRAGMA busy_timeout = 60000")
            barrier.wait(60)
            return call(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def rows_are_locked() -> None:
    if not connection.features.has_select_for_update:
        pytest.skip("One session writes at a time here: there is nobody to wait for inside of a transaction.")


# Threads


def test_of_twenty_threads_one_enqueues_the_job_and_the_others_get_it() -> None:
    results = at_once(lambda number: ship.enqueue(1, str(number)))

    assert Job.objects.count() == 1
    assert len({result.id for result in results}) == 1
    assert [result.is_new for result in results].count(True) == 1
    (winner,) = (number for number, result in enumerate(results) if result.is_new)
    assert row(results[0].id).args == [1, str(winner)]


def test_of_twenty_threads_all_but_one_are_refused_where_the_task_says_so() -> None:
    def enqueue(number: int) -> str:
        try:
            return str(ship_once.enqueue(1).id)
        except DuplicateJob as error:
            return f"refused for {error.job_id}"

    answers = at_once(enqueue)

    job = Job.objects.get()
    assert sorted(answers) == sorted([str(job.pk), *[f"refused for {job.pk}"] * (THREADS - 1)])


def test_of_twenty_threads_that_replace_one_wins_and_no_call_is_half_there() -> None:
    results = at_once(lambda number: index.using(priority=number).enqueue(1, note=str(number)))

    job = Job.objects.get()
    assert [result.is_new for result in results].count(True) == 1
    assert job.kwargs == {"note": str(job.priority)}
    assert (job.state, job.unique_until) == (JobState.SCHEDULED, None)


def test_of_twenty_threads_one_takes_a_key_whose_period_has_passed() -> None:
    start_worker()
    old = remind.enqueue(1)
    write(outcome(claim()[0], "succeed"))
    Job.objects.filter(pk=old.id).update(unique_until=from_now(-HOUR))

    results = at_once(lambda number: remind.enqueue(1))

    assert Job.objects.count() == 2
    assert len({result.id for result in results} | {old.id}) == 2
    assert [result.is_new for result in results].count(True) == 1


def test_threads_that_enqueue_the_same_many_jobs_in_any_order_share_them_and_none_fails() -> None:
    def enqueue(number: int) -> Any:
        numbers = [(place * 7 + number * 13) % 30 for place in range(30)]
        numbers = numbers[::-1] if number % 2 else numbers
        return [
            (result.id, result.args[0], result.is_new) for result in ship.enqueue_many([((n,), {}) for n in numbers])
        ]

    answers = [entry for entries in at_once(enqueue, 8) for entry in entries]

    assert Job.objects.count() == 30
    assert len({(pk, number) for pk, number, _ in answers}) == 30
    assert sum(is_new for _, _, is_new in answers) == 30


def test_threads_that_replace_the_same_many_jobs_in_any_order_do_not_fail() -> None:
    ship_latest.enqueue_many([((number,), {}) for number in range(0, 30, 2)])

    def enqueue(number: int) -> Any:
        numbers = list(range(30))[:: -1 if number % 2 else 1]
        return len(ship_latest.using(priority=number).enqueue_many([((n, str(number)), {}) for n in numbers]))

    answers = at_once(enqueue, 8)

    assert answers == [30] * 8
    assert Job.objects.count() == 30
    assert all(job.args[1] == str(job.priority) for job in Job.objects.all())


def test_threads_that_take_the_same_keys_whose_period_has_passed_do_not_fail() -> None:
    start_worker()
    remind.enqueue_many([((number,), {}) for number in range(20)])
    write(*(outcome(job, "fail") for job in claim(limit=20)))
    Job.objects.update(unique_until=from_now(-HOUR))

    def enqueue(number: int) -> int:
        numbers = list(range(30))[:: -1 if number % 2 else 1]
        return sum(result.is_new for result in remind.enqueue_many([((n,), {}) for n in numbers]))

    answers = at_once(enqueue, 8)

    assert sum(answers) == 30
    assert Job.objects.count() == 50


# Two sessions


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_a_session_waits_for_another_that_has_inserted_the_key_and_gets_its_job(many: bool) -> None:
    with Rival() as rival, Rival() as second_rival:
        rival.begin()
        first = rival.run(ship.enqueue, 1)
        waiting = second_rival.start(
            lambda: ship.enqueue_many([((1,), {}), ((2,), {})])[0] if many else ship.enqueue(1)
        )
        wait_until_blocked()
        rival.commit()
        second = waiting.result(20)

    assert (second.id, second.is_new) == (first.id, False)
    assert Job.objects.count() == 1 + many


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_after_a_rollback_there_the_one_that_waited_has_the_job(many: bool) -> None:
    with Rival() as rival, Rival() as second_rival:
        rival.begin()
        rival.run(ship.enqueue, 1, "rolled back")
        waiting = second_rival.start(
            lambda: ship.enqueue_many([((1, "kept"), {}), ((2,), {})])[0] if many else ship.enqueue(1, "kept")
        )
        wait_until_blocked()
        rival.run(transaction.set_rollback, True)
        rival.commit()
        second = waiting.result(20)

    assert second.is_new
    assert row(second.id).args == [1, "kept"]
    assert Job.objects.count() == 1 + many


def test_a_transaction_that_waited_goes_on() -> None:
    rows_are_locked()

    def in_a_transaction() -> Any:
        with transaction.atomic():
            before = ship.enqueue(2)
            result = ship.enqueue(1)
            after = ship.enqueue(3)
        return before, result, after

    with Rival() as rival, Rival() as second_rival:
        rival.begin()
        first = rival.run(ship.enqueue, 1)
        waiting = second_rival.start(in_a_transaction)
        wait_until_blocked()
        rival.commit()
        results = waiting.result(20)

    assert [result.is_new for result in results] == [True, False, True]
    assert results[1].id == first.id
    assert Job.objects.count() == 3


def test_a_job_that_a_worker_is_just_taking_is_not_replaced() -> None:
    start_worker()
    first = ship_latest.enqueue(1, "a")
    with Rival() as worker, Rival() as caller:
        worker.begin()
        worker.run(claim)
        waiting = caller.start(ship_latest.enqueue, 1, "b")
        wait_until_blocked()
        worker.commit()
        second = waiting.result(20)

    assert (second.id, second.args, row(first.id).args) == (first.id, [1, "a"], [1, "a"])
    assert state_of(first) == JobState.RUNNING


def test_two_sessions_that_enqueue_the_same_keys_in_opposite_orders_do_not_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows_are_locked()
    monkeypatch.setattr(insert, "AT_ONCE", 1)
    forth = [((number,), {}) for number in range(5)]
    has_begun, go_on = threading.Event(), threading.Event()

    def stop_after_the_first(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        done = execute(sql, params, many, context)
        if sql.startswith("WITH") and not has_begun.is_set():
            has_begun.set()
            assert go_on.wait(60)
        return done

    def enqueue_slowly() -> Any:
        with connection.execute_wrapper(stop_after_the_first):
            return ship.enqueue_many(forth)

    with Rival() as one, Rival() as other:
        slow = one.start(enqueue_slowly)
        assert has_begun.wait(60)
        quick = other.start(ship.enqueue_many, forth[::-1])
        wait_until_blocked()
        go_on.set()
        first, second = slow.result(20), quick.result(20)

    assert [result.id for result in second[::-1]] == [result.id for result in first]
    assert not any(result.is_new for result in second)


@contextmanager
def just_before(verb: str, action: Callable[[], Any], words: str = "") -> Iterator[list[str]]:
    """Do something in another session just before the first statement of this one that begins with ``verb``."""
    done: list[str] = []

    def wrap(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not done and sql.startswith(verb) and words in sql:
            done.append(sql)
            with Rival() as rival:
                rival.run(action)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrap):
        yield done


def test_a_job_that_ends_between_two_looks_at_it_does_not_swallow_the_call() -> None:
    rows_are_locked()
    start_worker()
    first = ship_latest.enqueue(1, "a")

    def run_it() -> None:
        write(outcome(claim()[0], "succeed"))

    # The lock of the job that is to be replaced, once it was found waiting.
    with just_before('SELECT "django_jobs_job"."id" AS "pk"', run_it) as done:
        second = ship_latest.enqueue(1, "b")

    assert done
    assert second.is_new
    assert row(second.id).args == [1, "b"]
    assert state_of(first) == JobState.SUCCEEDED


def test_no_worker_takes_a_job_that_is_being_replaced() -> None:
    rows_are_locked()
    start_worker()
    first = ship_latest.enqueue(1, "a")
    claimed: list[Any] = []

    with just_before("UPDATE", lambda: claimed.extend(claim()), "kwargs") as done:
        second = ship_latest.enqueue(1, "b")

    assert done
    assert claimed == []
    assert (second.args, state_of(first)) == ([1, "b"], JobState.READY)
    assert claim()[0].args == [1, "b"]


def test_a_key_that_another_session_has_freed_and_taken_meanwhile_is_not_freed_again() -> None:
    rows_are_locked()
    start_worker()
    old = remind.enqueue(1)
    write(outcome(claim()[0], "succeed"))
    Job.objects.filter(pk=old.id).update(unique_until=from_now(-HOUR))
    others: list[Any] = []

    with just_before('SELECT "django_jobs_job"."id" AS "pk"', lambda: others.append(remind.enqueue(1))) as done:
        second = remind.enqueue(1)

    assert done
    assert (second.id, second.is_new) == (others[0].id, False)
    assert Job.objects.count() == 2


def test_a_job_that_is_requeued_while_its_key_is_about_to_be_freed_keeps_it() -> None:
    rows_are_locked()
    start_worker()
    old = remind.enqueue(1)
    write(outcome(claim()[0], "fail"))
    Job.objects.filter(pk=old.id).update(unique_until=from_now(-HOUR))

    with just_before('SELECT "django_jobs_job"."id" AS "pk"', lambda: Job.objects.all().requeue()) as done:
        second = remind.enqueue(1)

    assert done
    assert (second.id, second.is_new) == (old.id, False)
    assert state_of(old) == JobState.READY


def test_a_key_that_is_taken_in_the_moment_of_a_requeue_keeps_that_job_only() -> None:
    rows_are_locked()
    jobs = [job_in(JobState.FAILED, unique_key=key) for key in ("one", "two", "three")]
    taker = tasks.noop.using(unique_key="two", queue_name="other")

    with just_before("DELETE", taker.enqueue, "IS NOT NULL") as done:
        moved = Job.objects.filter(pk__in=[job.pk for job in jobs]).requeue()

    assert done
    assert moved == 2
    assert [state_of(job) for job in jobs] == [JobState.READY, JobState.FAILED, JobState.READY]
