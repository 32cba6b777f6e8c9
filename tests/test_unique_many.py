"""Unique jobs, many at once: in few statements, in their order, all or nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_jobs import enqueue_many
from django_jobs.exceptions import DuplicateJob
from django_jobs.models import Job, job_queryset, unique
from django_jobs.models.database import from_now
from django_jobs.models.insert import can_insert_values
from django_jobs.states import JobState
from django_jobs.testing import run_jobs

from . import tasks
from .rows import HOUR, claim, outcome, row, start_worker, state_of, write
from .unique_tasks import import_file, index, remind, ship, ship_latest, ship_once

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["in sets", "by the ORM"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enqueue in both ways, of which a database without sets in JSON has the second only."""
    if request.param == "by the ORM":
        for module in (job_queryset, unique):
            monkeypatch.setattr(module, "can_insert_values", lambda connection: False)


def in_sets() -> None:
    if not can_insert_values(connection):
        pytest.skip("This database is written by the ORM, job by job.")


def calls(*numbers: int, note: str = "") -> list[Any]:
    return [((number, note), {}) for number in numbers]


@pytest.mark.usefixtures("way")
def test_each_call_gets_its_own_job_or_the_one_that_has_its_key() -> None:
    earlier = ship.enqueue(2, "before")

    results = ship.enqueue_many(calls(1, 2, 3, 1, 2, note="now"))

    assert [result.is_new for result in results] == [True, False, True, False, False]
    assert results[1].id == results[4].id == earlier.id
    assert results[3].id == results[0].id
    assert [result.args for result in results] == [[1, "now"], [2, "before"], [3, "now"], [1, "now"], [2, "before"]]
    assert Job.objects.count() == 3


@pytest.mark.usefixtures("way")
def test_ids_are_in_the_order_of_the_calls_whatever_their_keys_and_others_between_them() -> None:
    start_worker()
    expired = remind.enqueue(8)
    write(outcome(claim()[0], "succeed"))
    Job.objects.filter(pk=expired.id).update(unique_until=from_now(-HOUR))
    entries = [
        (tasks.noop, (9,), {}),
        (ship, (9,), {}),
        (tasks.made_by_django, (8,), {}),
        (remind, (8,), {}),
        (ship, (1,), {}),
        (tasks.noop, (7,), {}),
        (remind, (2,), {}),
    ]

    results = enqueue_many(entries)

    ids = [int(result.id) for result in results]
    assert all(result.is_new for result in results)
    assert ids == sorted(set(ids))
    assert ids[0] > int(expired.id)
    assert [(row(pk).task_path, row(pk).args) for pk in ids] == [
        (getattr(task, "path", task.module_path), list(args)) for task, args, _ in entries
    ]
    assert [row(pk).unique_key is None for pk in ids] == [True, False, True, False, False, True, False]


def test_thousands_are_a_statement_for_each_thousand() -> None:
    in_sets()
    seen: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql.split()[0])
        assert len(params or ()) < 20
        return execute(sql, params, many, context)

    entries = [(ship if number % 2 else tasks.noop, (number,), {}) for number in range(3000)]
    with connection.execute_wrapper(note):
        results = enqueue_many(entries)

    # Ids, rows; the hint follows the commit.
    assert [verb for verb in seen if verb in ("SELECT", "WITH")] == ["SELECT", "WITH", "WITH", "WITH"]
    assert not {"INSERT", "UPDATE"} & set(seen)
    assert [row(result.id).args for result in results[::500]] == [[number] for number in range(0, 3000, 500)]


def test_thousands_that_exist_are_read_in_few_statements() -> None:
    in_sets()
    first = ship.enqueue_many(calls(*range(2000)))

    with CaptureQueriesContext(connection) as captured:
        again = ship.enqueue_many(calls(*range(2000)))
        ids = [result.id for result in again]

    assert ids == [result.id for result in first]
    assert not any(result.is_new for result in again)
    # A savepoint and its end, ids, two INSERTs that insert nothing, and twice the rows with their attempts.
    assert len(captured) <= 10


def test_large_arguments_are_spread_over_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_jobs.models.insert.MOST_BYTES", 1000)
    sizes = [1, 2000, 3, 400, 500, 600, 7, 3000, 3000, 2]

    results = import_file.enqueue_many([(("x" * size,), {}) for size in sizes])

    assert [len(row(result.id).args[0]) for result in results] == sizes
    assert [result.is_new for result in results] == [True] * 8 + [False, True]


@pytest.mark.usefixtures("way")
def test_a_callable_may_leave_some_of_many_without_a_key() -> None:
    results = ship.enqueue_many(calls(1)), tasks.noop.using(unique_key="all").enqueue_many([((n,), {}) for n in "abc"])

    assert [result.is_new for result in results[1]] == [True, False, False]
    assert {tuple(result.args) for result in results[1]} == {("a",)}


# All or nothing


@pytest.mark.usefixtures("way")
def test_one_taken_key_refuses_all_and_names_the_first() -> None:
    taken = [ship_once.enqueue(number) for number in (5, 3)]

    with transaction.atomic():
        with pytest.raises(DuplicateJob) as caught:
            enqueue_many([(tasks.noop, (), {}), *((ship_once, (number,), {}) for number in (9, 3, 5, 1))])
        tasks.noop.enqueue("after")

    assert (caught.value.job_id, caught.value.unique_key) == (taken[1].id, row(taken[1].id).unique_key)
    assert sorted(map(str, Job.objects.values_list("args", flat=True))) == ["['after']", "[3]", "[5]"]


@pytest.mark.usefixtures("way")
def test_a_key_that_two_of_the_same_calls_have_refuses_all_and_names_no_job() -> None:
    with pytest.raises(DuplicateJob) as caught:
        ship_once.enqueue_many(calls(1, 2, 1))

    assert caught.value.job_id is None
    assert str(caught.value).startswith("An earlier job of the same enqueue_many() has the unique key 'tests.unique_")
    assert Job.objects.count() == 0


def test_a_call_that_does_not_fit_refuses_all() -> None:
    with pytest.raises(TypeError, match="missing a required argument"):
        enqueue_many([(tasks.noop, (), {}), (ship, (1,), {}), (ship, (), {})])

    assert Job.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_unique_jobs_are_rolled_back_with_the_callers_transaction() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        ship.enqueue(1)
        ship.enqueue_many(calls(1, 2))
        raise ZeroDivisionError

    assert Job.objects.count() == 0
    assert ship.enqueue(1).is_new


# Replace


@pytest.mark.usefixtures("way")
def test_many_jobs_that_have_not_started_take_the_values_of_the_new_calls() -> None:
    start_worker()
    first = ship_latest.enqueue_many(calls(*range(120), note="a"))
    claim(limit=1)

    second = ship_latest.using(priority=4).enqueue_many([*calls(*range(120), note="b"), *calls(120, 121, note="new")])

    assert [result.id for result in second[:120]] == [result.id for result in first]
    assert [result.is_new for result in second] == [False] * 120 + [True] * 2
    assert second[0].args == [0, "a"]
    assert [result.args for result in second[1:120]] == [[number, "b"] for number in range(1, 120)]
    stored = dict(Job.objects.values_list("pk", "args"))
    assert all(stored[int(result.id)] == result.args for result in second)
    assert set(Job.objects.exclude(state=JobState.RUNNING).values_list("priority", flat=True)) == {4}


@pytest.mark.usefixtures("way")
def test_of_calls_with_one_key_the_last_wins() -> None:
    waiting = ship_latest.enqueue(2, "waiting")

    results = ship_latest.enqueue_many([*calls(1, 2, note="a"), *calls(1, 2, note="b"), *calls(1, note="c")])

    assert [result.is_new for result in results] == [True, False, False, False, False]
    assert results[1].id == results[3].id == waiting.id
    assert row(results[0].id).args == [1, "c"]
    assert row(waiting.id).args == [2, "b"]


@pytest.mark.usefixtures("way")
def test_a_burst_in_one_call_runs_once_with_the_last_arguments() -> None:
    results = index.enqueue_many(calls(1, 1, 1, note="a") + calls(1, note="z"))

    assert len({result.id for result in results}) == 1
    assert state_of(results[0]) == JobState.SCHEDULED
    assert row(results[0].id).unique_until is None
    assert run_jobs(include_scheduled=True) == 1
    assert index.get_result(results[0].id).return_value == "z"


@pytest.mark.usefixtures("way")
def test_each_task_of_many_does_with_a_conflict_what_it_says() -> None:
    ship.enqueue(1, "a")
    ship_latest.enqueue(1, "a")

    results = enqueue_many([(ship, (1, "b"), {}), (ship_latest, (1, "b"), {}), (ship_once, (1, "b"), {})])

    assert [result.args for result in results] == [[1, "a"], [1, "b"], [1, "b"]]
    assert [result.is_new for result in results] == [False, False, True]


# For a time


@pytest.mark.usefixtures("way")
def test_of_many_keys_those_whose_period_has_passed_are_taken_anew() -> None:
    start_worker()
    first = remind.enqueue_many(calls(1, 2, 3))
    write(*(outcome(job, "succeed") for job in claim()))
    Job.objects.filter(pk__in=[first[0].id, first[2].id]).update(unique_until=from_now(-timedelta(seconds=1)))

    second = remind.enqueue_many(calls(3, 2, 1, 1))

    assert [result.is_new for result in second] == [True, False, True, False]
    assert second[1].id == first[1].id
    assert [row(result.id).unique_until is None for result in first] == [True, False, True]
    ids = [int(result.id) for result in second]
    assert ids[0] < ids[2] == ids[3]
