"""How new jobs are written: one by one, many at a time and by the ORM, they become the same rows."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import DataError, connection, connections, models, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone as django_timezone

from django_jobs import enqueue_many
from django_jobs.backend import JobResult, JobResults
from django_jobs.compat import TaskResultStatus
from django_jobs.models import Job, insert, job_queryset
from django_jobs.signals import job_enqueued
from django_jobs.states import JobState

from . import tasks
from .rows import HOUR, row

OURS = "django_jobs.backend.JobsBackend"


class Lane(enum.StrEnum):
    MAIL = "mail"


class Choice(models.TextChoices):
    MAIL = "mail"


class Old(str, enum.Enum):  # noqa: UP042 - as it was written before Python 3.11
    MAIL = "mail"


VALUES = [
    pytest.param(value, id=name)
    for name, value in {
        "text": "plain",
        "empty text": "",
        "quotes": 'it\'s "quoted" `so`',
        "backslashes": "\\ \\\\ \\n \\u0041 C:\\new",
        "looks like an escaped NUL": "\\u0000",
        "looks like an escaped surrogate": "\\ud800",
        "line ends": "a\nb\r\n\tc",
        "control characters": "\x01\x1f\x7f",
        "accents": "déjà vu, straße",
        "other alphabets": "ключ 鍵 מפתח",
        "emoji": "😀 👩‍👩‍👧",
        "last of its plane": "\uffff\U0010ffff",
        "percent": "100 % %s %(name)s",
        "braces": "{} {0} {{}} $1 $$",
        "brackets": "[" * 300,
        "like SQL": "'; DROP TABLE django_jobs_job; --",
        "like JSON": '{"a": [1, "b"]}',
        "comma": ",",
        "zero": 0,
        "negative": -7,
        "big": 2**63,
        "very big": 10**60,
        "bool": True,
        "null": None,
        "float": 0.1,
        "whole float": 2.0,
        "tiny": 5e-324,
        "third": 1 / 3,
        "empty list": [],
        "empty dict": {},
        "nested": {"a": [1, {"b": [None, True, {"c": "d"}]}], "": {"": []}},
        "many lists": [[number] for number in range(150)],
        "deep": json.loads("[" * 90 + "]" * 90),
        "tuple": (1, (2, "x")),
        "bytes": b"text",
        "numbers as keys": {"1": "a", "-1": "b"},
        "long": "x" * 100_000,
    }.items()
]


@pytest.fixture(params=["one", "many", "by the ORM"])
def write(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that enqueues one call in one of the three ways, and returns its result."""

    def enqueue(task: Any, *args: Any, **kwargs: Any) -> JobResult:
        if request.param == "many":
            # Between others, so that it is neither the first nor the last.
            other = (tasks.add, ("other",), {"b": [1]})
            result: JobResult = enqueue_many([other, (task, args, kwargs), other])[1]
            return result
        if request.param == "by the ORM":
            monkeypatch.setattr(job_queryset, "can_insert_values", lambda connection: False)
        enqueued: JobResult = task.enqueue(*args, **kwargs)
        return enqueued

    return enqueue


@pytest.fixture
def received() -> Iterator[list[Job]]:
    """Return the jobs of which the signal has told."""
    jobs: list[Job] = []

    def receive(job: Job, **kwargs: Any) -> None:
        jobs.append(job)

    job_enqueued.connect(receive)
    yield jobs
    job_enqueued.disconnect(receive)


def as_stored(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else json.loads(json.dumps(value))


# What is written


@pytest.mark.django_db
@pytest.mark.parametrize("value", VALUES)
def test_an_argument_is_read_as_it_was_given_however_it_was_written(value: Any, write: Any) -> None:
    result = write(tasks.noop, value, 1, name=value, ключ="x")

    job = row(result.id)
    assert (job.args, job.kwargs) == ([as_stored(value), 1], {"name": as_stored(value), "ключ": "x"})
    assert (result.args, result.kwargs) == (job.args, job.kwargs)
    assert [type(each) for each in job.args] == [type(each) for each in result.args]


@pytest.mark.django_db
@pytest.mark.parametrize("value", VALUES)
def test_a_note_is_read_as_it_was_given_however_it_was_written(value: Any, write: Any) -> None:
    result = write(tasks.noop.using(meta={"note": value}))

    assert row(result.id).meta == {"note": as_stored(value)}


@pytest.mark.django_db
def test_no_arguments_are_written_as_none(write: Any) -> None:
    result = write(tasks.noop)

    assert (row(result.id).args, row(result.id).kwargs) == (result.args, result.kwargs) == ([], {})


@pytest.mark.django_db
def test_a_row_has_the_options_of_its_task_and_the_defaults_of_the_rest(write: Any) -> None:
    task = tasks.send_mail.using(priority=-7, queue_name='a "queue" %s', max_attempts=9, meta={"by": ["me"]})

    result = write(task, "ada@example.com")

    stored = Job.objects.filter(pk=result.id).values().get()
    assert stored == {
        **{field.attname: None for field in Job._meta.concrete_fields if field.null},
        "id": int(result.id),
        "task_path": "tests.tasks.send_mail",
        "queue_name": 'a "queue" %s',
        "priority": -7,
        "args": ["ada@example.com"],
        "kwargs": {},
        "state": JobState.READY,
        "enqueued_at": result.enqueued_at,
        "attempt": 0,
        "max_attempts": 9,
        "worker_id": "",
        "meta": {"by": ["me"]},
        "backend": "default",
        "concurrency_key": "",
        "raised": 0,
    }


@pytest.mark.django_db
@pytest.mark.parametrize("queue_name", [Lane.MAIL, Choice.MAIL, Old.MAIL], ids=["StrEnum", "TextChoices", "Enum"])
def test_a_queue_named_by_an_enumeration_is_stored_by_its_text(queue_name: Any, write: Any) -> None:
    result = write(tasks.noop.using(queue_name=queue_name))

    assert row(result.id).queue_name == "mail"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "moment",
    [
        datetime(2040, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2040, 1, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        datetime(1890, 1, 1, 12, tzinfo=timezone(-timedelta(minutes=19, seconds=32))),
    ],
    ids=["UTC", "Nepal", "seconds"],
)
def test_a_time_to_wait_for_is_stored_to_the_microsecond(moment: datetime, write: Any) -> None:
    job = row(write(tasks.noop.using(run_after=moment)).id)

    assert (job.state, job.run_after) == (JobState.SCHEDULED, moment)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "delay",
    [
        timedelta(microseconds=1234),
        timedelta(days=40, seconds=3, microseconds=999_000),
        timedelta(days=365),
        timedelta(0),
        -HOUR,
    ],
    ids=str,
)
def test_a_delay_is_counted_from_the_databases_now(delay: timedelta, write: Any) -> None:
    job = row(write(tasks.noop.using(run_after=delay)).id)

    assert job.state == JobState.SCHEDULED
    assert abs(job.run_after - job.enqueued_at - delay) < timedelta(milliseconds=2)


@pytest.mark.django_db
def test_without_time_zones_times_are_the_projects_own(settings: Any, write: Any) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = "Asia/Kathmandu"
    moment = datetime(2040, 1, 1, 12, 30)

    result, later = write(tasks.noop.using(run_after=moment)), write(tasks.noop.using(run_after=HOUR))

    assert row(result.id).run_after == moment
    assert row(result.id).enqueued_at == result.enqueued_at
    assert abs(row(later.id).run_after - row(later.id).enqueued_at - HOUR) < timedelta(milliseconds=2)
    if connection.features.supports_timezones:
        # SQLite's clock is UTC whatever the project's time is.
        local = datetime.now(timezone(timedelta(hours=5, minutes=45))).replace(tzinfo=None)
        assert abs(result.enqueued_at - local) < HOUR


@pytest.mark.django_db
def test_a_unique_key_is_stored_with_its_job(write: Any) -> None:
    unique = tasks.noop.using(unique_key='it\'s "one" %s', run_after=HOUR)

    first, second = write(unique, 1), write(unique, 2)

    assert row(first.id).unique_key == 'it\'s "one" %s'
    assert second.id == first.id
    assert row(first.id).args == [1]


@pytest.mark.django_db
def test_an_argument_that_changes_later_does_not_change_what_was_enqueued(write: Any) -> None:
    value = ["before"]

    result = write(tasks.noop, value)
    value.append("after")

    assert result.args == row(result.id).args == [["before"]]


@pytest.mark.django_db
def test_a_receiver_gets_the_row_that_was_saved(write: Any, received: list[Job]) -> None:
    for using in ({}, {"run_after": HOUR}, {"run_after": datetime(2040, 1, 1, tzinfo=UTC)}, {"unique_key": "one"}):
        write(tasks.noop.using(meta={"a": 1}, priority=3, **using), 1, b=[2])

    assert received
    for job in received:
        stored = row(job.pk)
        assert (job._state.adding, job._state.db) == (False, "default")
        for field in Job._meta.concrete_fields:
            if field.name != "run_after":
                assert getattr(job, field.attname) == getattr(stored, field.attname), field.name
        assert (job.run_after is None) == (stored.run_after is None)
        assert job.run_after is None or abs(job.run_after - stored.run_after) < timedelta(milliseconds=2)


# In how many statements, and in which transaction


@pytest.mark.django_db
def test_many_jobs_of_many_tasks_keep_their_order() -> None:
    calls = [
        (tasks.noop.using(queue_name=f"queue-{number % 7}", priority=number % 5), (number,), {})
        for number in range(1500)
    ]

    results = enqueue_many(calls)

    ids = [int(result.id) for result in results]
    stored = list(Job.objects.order_by("pk").values_list("pk", "args", "queue_name", "priority"))
    assert ids == sorted(set(ids))
    assert stored == [(pk, [n], f"queue-{n % 7}", n % 5) for n, pk in enumerate(ids)]


@pytest.mark.django_db
def test_large_arguments_are_spread_over_statements_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insert, "MOST_BYTES", 1000)
    sizes = [1, 2000, 3, 400, 500, 600, 7, 3000, 3000, 2]

    with CaptureQueriesContext(connection) as captured:
        results = tasks.noop.enqueue_many([(("x" * size,), {}) for size in sizes])

    assert [len(row(result.id).args[0]) for result in results] == sizes
    assert len(captured) > 4 or not insert.can_insert_values(connection)


@pytest.mark.django_db(transaction=True)
def test_thousands_of_jobs_are_few_statements_with_few_parameters() -> None:
    if not insert.can_insert_values(connection):
        pytest.skip("This database is written by the ORM.")
    seen: list[int] = []

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(len(params or ()))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(count):
        tasks.noop.enqueue_many([((number,), {}) for number in range(3000)])

    # Three INSERTs and one hint.
    assert len(seen) == 4
    assert max(seen) < 10


@pytest.mark.django_db(transaction=True)
def test_many_jobs_are_rolled_back_with_the_callers_transaction_or_savepoint() -> None:
    with transaction.atomic():
        tasks.noop.enqueue_many([((1,), {})] * 3)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            tasks.noop.enqueue_many([((2,), {})] * 3)
            tasks.noop.enqueue(3)
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        tasks.noop.enqueue_many([((4,), {})] * 3)
        raise ZeroDivisionError

    assert list(Job.objects.values_list("args", flat=True)) == [[1]] * 3


@pytest.mark.django_db(transaction=True)
def test_an_error_of_the_database_breaks_the_callers_transaction_as_any_insert_does(settings: Any) -> None:
    if not insert.can_insert_values(connection):
        pytest.skip("This database takes texts of any length.")
    alias = "x" * 101
    settings.TASKS = {name: {"BACKEND": OURS, "QUEUES": []} for name in ("default", alias)}
    bad = tasks.noop.using(backend=alias)

    with pytest.raises(DataError):
        bad.enqueue()
    with transaction.atomic():
        with pytest.raises(DataError):
            bad.enqueue_many([((), {})] * 2)
        tasks.noop.enqueue()
        after_many = connection.needs_rollback
        with pytest.raises(DataError):
            bad.enqueue()
        after_one = connection.needs_rollback

    assert (after_many, after_one) == (False, True)
    assert Job.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_jobs_are_written_to_the_database_that_the_setting_names(settings: Any, write: Any) -> None:
    connections.settings["jobs"] = connections.settings["default"]
    settings.DJANGO_JOBS = {"DATABASE": "jobs"}
    statements: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        return execute(sql, params, many, context)

    # By hand: else the test may not.
    connections["jobs"].connect()
    try:
        with CaptureQueriesContext(connection) as elsewhere, connections["jobs"].execute_wrapper(note):
            result = write(tasks.noop, 1)
        stored = Job.objects.using("jobs").get(pk=result.id)
    finally:
        connections["jobs"].close()
        del connections["jobs"], connections.settings["jobs"]

    assert (len(elsewhere), stored.args) == (0, [1])
    assert any(sql.startswith(("INSERT", "WITH")) for sql in statements)


@pytest.mark.django_db(transaction=True)
def test_a_new_column_with_a_default_would_be_written_too() -> None:
    if not insert.can_insert_values(connection):
        pytest.skip("This database is written by the ORM.")
    statements = insert._statements_for(connection)
    columns = {field.column for field in Job._meta.concrete_fields}

    left_out = {column for column in columns if f'"{column}"' not in statements.one.partition("VALUES")[0]}

    known_to_the_database = {
        field.column for field in Job._meta.concrete_fields if field.null or field.has_db_default()
    }
    assert left_out <= known_to_the_database | {"id"}


# The results of many


@pytest.fixture
def results() -> JobResults:
    found = tasks.add.enqueue_many([((number,), {"b": 1}) for number in range(5)])
    assert isinstance(found, JobResults)
    return found


@pytest.mark.django_db
def test_results_of_many_are_counted_indexed_sliced_and_walked_as_a_list(results: JobResults) -> None:
    walked = list(results)

    assert len(results) == len(walked) == 5
    assert [result.args for result in walked] == [[number] for number in range(5)]
    assert (results[0], results[-1], results[1:3], results[::-2]) == (
        walked[0],
        walked[4],
        walked[1:3],
        walked[::-2],
    )
    assert walked[3] in results
    assert results.index(walked[3]) == 3
    with pytest.raises(IndexError):
        results[5]


@pytest.mark.django_db
def test_results_of_many_equal_a_list_of_the_same_results(results: JobResults) -> None:
    assert results == list(results)
    assert list(results) == results
    assert results != list(results)[:4]
    assert results != tasks.add.enqueue_many([((number,), {"b": 1}) for number in range(5)])
    assert results != 5
    assert repr(results) == "<JobResults: 5 jobs>"


@pytest.mark.django_db
def test_a_result_of_many_equals_the_one_that_is_read_again(results: JobResults) -> None:
    assert [tasks.add.get_result(result.id) for result in results] == results


@pytest.mark.django_db
def test_a_result_of_many_is_made_once_and_keeps_what_it_has_learned(results: JobResults) -> None:
    Job.objects.filter(pk=results[2].id).cancel()

    results[2].refresh()

    assert results[2] is results[2]
    assert [result.status for result in results[1:4]] == [
        TaskResultStatus.READY,
        TaskResultStatus.FAILED,
        TaskResultStatus.READY,
    ]


@pytest.mark.django_db
def test_a_delay_does_not_read_the_clock_of_this_machine(monkeypatch: pytest.MonkeyPatch, write: Any) -> None:
    monkeypatch.setattr(django_timezone, "now", lambda: datetime(2001, 1, 1, tzinfo=UTC))

    job = row(write(tasks.noop.using(run_after=HOUR)).id)

    assert job.run_after.year > 2001
