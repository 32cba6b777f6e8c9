"""A row whose arguments no Python can hold fails, and the jobs that are claimed with it run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from django_jobs import signals
from django_jobs.compat import task_finished
from django_jobs.exceptions import InvalidArgument
from django_jobs.models import Job, Queue
from django_jobs.outcomes import Unreadable
from django_jobs.states import JobState
from django_jobs.worker import Worker

from . import tasks
from .attempts import history, run, run_async
from .conftest import wait_until
from .exchanges import Hand, enqueue, states
from .rows import claim, row, start_worker, write

pytestmark = pytest.mark.django_db

# More digits than Python makes a number of; the database takes it.
LONG = "9" * 5000
FAILED, SUCCEEDED, READY = JobState.FAILED, JobState.SUCCEEDED, JobState.READY


def store(pk: int, column: str, text: str) -> None:
    """Write a text of JSON into a row, past enqueue."""
    cast = "::jsonb" if connection.features.has_native_json_field else ""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE django_jobs_job SET {column} = %s{cast} WHERE id = %s", [text, pk])


def beyond_python(column: str) -> str:
    return f"[{LONG}]" if column == "args" else f'{{"key": {LONG}}}'


@pytest.mark.parametrize("queues", [["default"], ["default", "mail"]], ids=str)
@pytest.mark.parametrize("column", ["args", "kwargs", "meta"])
def test_a_row_that_cannot_be_read_does_not_keep_others_from_being_claimed(column: str, queues: list[str]) -> None:
    start_worker()
    before, odd, after = enqueue(3)
    store(odd, column, beyond_python(column))

    jobs = claim(queues=queues)

    assert [job.id for job in jobs] == [before, odd, after]
    assert isinstance(getattr(jobs[1], column), Unreadable)


@pytest.mark.parametrize("column", ["args", "kwargs"])
@pytest.mark.parametrize(("task", "run_it"), [(tasks.noop, run), (tasks.add_async, run_async)], ids=["plain", "async"])
def test_a_job_whose_arguments_cannot_be_read_fails_and_says_why(
    column: str, task: Any, run_it: Callable[[Any], Any]
) -> None:
    start_worker()
    pk = int(task.using(max_attempts=1).enqueue(1, b=2).id)
    store(pk, column, beyond_python(column))
    [job] = claim()

    ended = run_it(job)

    write(ended)
    assert (row_state(pk), ended.failure.exception_class) == (FAILED, "django_jobs.exceptions.InvalidArgument")
    assert ended.verb == "fail"
    [attempt] = history(job)
    assert attempt.message.startswith("The arguments in the row of the job cannot be read: Exceeds the limit")


def row_state(pk: int) -> JobState:
    return JobState(Job.objects.values_list("state", flat=True).get(pk=pk))


def test_a_job_whose_meta_cannot_be_read_runs() -> None:
    start_worker()
    [pk] = enqueue(1)
    store(pk, "meta", beyond_python("meta"))
    [job] = claim()

    ended = run(job)

    write(ended)
    assert row(pk).state == SUCCEEDED


@pytest.mark.parametrize(
    ("column", "text"), [("args", "null"), ("args", "7"), ("args", "{}"), ("kwargs", "[1]"), ("kwargs", "null")]
)
def test_arguments_that_are_no_list_or_no_mapping_spoil_their_job_only(column: str, text: str) -> None:
    start_worker()
    odd, after = enqueue(2)
    store(odd, column, text)

    ended = [run(job) for job in claim()]

    write(*ended)
    assert row(after).state == SUCCEEDED
    # An empty mapping is as good as an empty list.
    assert (ended[0].verb == "succeed") == (text == "{}")


@pytest.mark.skipif(not connection.features.has_native_json_field, reason="The database refuses to store it.")
def test_what_is_nested_too_deeply_for_python_spoils_its_job_only() -> None:
    start_worker()
    odd, after = enqueue(2)
    store(odd, "args", "[" * 3000 + "]" * 3000)

    ended = [run(job) for job in claim()]

    write(*ended)
    assert [outcome.job.id for outcome in ended] == [odd, after]
    assert row_state(after) == SUCCEEDED


def test_unreadable_arguments_raise_whichever_way_they_are_used() -> None:
    unreadable: Any = Unreadable(ValueError("too long"))

    for use in (lambda: [*unreadable], lambda: dict(**unreadable), lambda: tasks.noop.func(*unreadable)):
        with pytest.raises(InvalidArgument, match="cannot be read: too long"):
            use()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("signal", [signals.job_failed, task_finished], ids=["job_failed", "task_finished"])
def test_a_worker_goes_on_with_such_a_row_among_its_jobs_and_tells_of_its_failure(signal: Any) -> None:
    told: list[int] = []

    def hear(**arguments: Any) -> None:
        told.append(arguments["job_id"] if "job_id" in arguments else int(arguments["task_result"].id))

    signal.connect(hear)
    odd, *others = enqueue(4)
    store(odd, "args", beyond_python("args"))

    try:
        with Worker(poll_interval=0.05, shutdown_timeout=30) as worker:
            wait_until(lambda: not Job.objects.unfinished().exists())
            wait_until(lambda: odd in told)
            is_well = worker.health()["threads"]["alive"] and not worker.is_stopping
    finally:
        signal.disconnect(hear)

    assert is_well
    assert [row_state(pk) for pk in (odd, *others)] == [FAILED, *[SUCCEEDED] * 3]


def test_a_job_whose_result_cannot_be_made_fails_and_its_thread_goes_on() -> None:
    start_worker()
    enqueue(1)
    [job] = claim()

    # As no row holds it.
    ended = run(job._replace(args=[object()], kwargs={"nobody": "knows"}, task_path="tests.tasks.add"))

    assert ended.verb in ("fail", "retry")
    assert ended.failure.exception_class == "builtins.TypeError"


def test_an_exchange_hands_on_the_others_of_a_claim() -> None:
    Queue.objects.declare("default")
    with Hand(concurrency=3) as hand:
        ids = enqueue(3)
        store(ids[0], "args", beyond_python("args"))

        held = hand.turn()

        assert held == ids
        assert states(ids) == [JobState.RUNNING] * 3
