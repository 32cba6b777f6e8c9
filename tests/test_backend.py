"""The backend of Django's tasks framework: results, signals, and what it makes of the states."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from django_jobs.backend import JobResult, JobsBackend
from django_jobs.compat import (
    InvalidTaskBackend,
    TaskResultStatus,
    task_backends,
    task_enqueued,
)
from django_jobs.models import Job
from django_jobs.outcomes import Failure

from . import tasks
from .rows import outcome, row, write

OURS = "django_jobs.backend.JobsBackend"
FAILURE = Failure("builtins.ValueError", "bad", "Traceback: bad\n", "f")


def fail_once_and_stage(job: Any) -> None:
    write(outcome(job, "retry", failure=FAILURE))
    Job.objects.filter(pk=job.id).stage()


# Enqueue


@pytest.mark.django_db
def test_a_new_result_says_what_the_row_says() -> None:
    result = tasks.add.using(priority=7, queue_name="slow").enqueue(1, b=2)

    assert isinstance(result, JobResult)
    assert result.id == str(Job.objects.get().pk)
    assert (result.status, result.args, result.kwargs) == (TaskResultStatus.READY, [1], {"b": 2})
    assert (result.started_at, result.finished_at, result.last_attempted_at) == (None, None, None)
    assert (result.errors, result.worker_ids, result.attempts, result.is_finished) == ([], [], 0, False)
    assert result.backend == "default"


@pytest.mark.django_db
def test_a_new_result_equals_the_one_that_is_read_again() -> None:
    result = tasks.add.using(priority=7, queue_name="slow").enqueue(1, b=2)

    assert tasks.add.get_result(result.id) == result


@pytest.mark.django_db
def test_a_task_made_by_djangos_decorator_becomes_a_job() -> None:
    result = tasks.made_by_django.enqueue(1)

    assert row(result.id).task_path == "tests.tasks.made_by_django"
    assert tasks.made_by_django.get_result(result.id) == result


@pytest.mark.django_db
def test_a_task_of_another_backend_can_be_bound_to_this_one(settings: Any) -> None:
    plain = _plain_task(settings)
    settings.DJANGO_JOBS = {"MAX_ATTEMPTS": 4}

    result = plain.using(backend="jobs", priority=3).enqueue(1)

    job = row(result.id)
    assert (job.task_path, job.priority, job.max_attempts) == ("tests.tasks.made_by_django", 3, 4)
    assert (job.backend, job.args, job.meta, job.unique_key) == ("jobs", [1], {}, None)
    assert result.refresh() is None


def _plain_task(settings: Any) -> Any:
    """Return a task of Django's own class, bound to another backend than ours."""
    from django_jobs.compat import DjangoTask

    other = "django_jobs.compat.BaseDummyBackend"
    settings.TASKS = {"default": {"BACKEND": other, "QUEUES": []}, "jobs": {"BACKEND": OURS, "QUEUES": []}}
    made = DjangoTask(
        func=tasks.made_by_django.func, priority=0, backend="default", queue_name="default", run_after=None
    )
    assert type(made) is DjangoTask
    return made


@pytest.mark.django_db
def test_the_asynchronous_variants_do_the_same() -> None:
    async def enqueue_and_read() -> tuple[Any, Any]:
        enqueued = await tasks.add.aenqueue(1, b=2)
        read = await tasks.add.aget_result(enqueued.id)
        await read.arefresh()
        return enqueued, read

    enqueued, read = async_to_sync(enqueue_and_read)()

    assert read == enqueued
    assert row(enqueued.id).kwargs == {"b": 2}


@pytest.mark.django_db
def test_an_async_function_is_enqueued_as_any_other() -> None:
    result = tasks.add_async.enqueue(1, 2)

    assert row(result.id).task_path == "tests.tasks.add_async"


def test_making_a_backend_touches_nothing() -> None:
    backend = JobsBackend("x", {"BACKEND": OURS})

    assert (backend.alias, backend.queues, backend.options) == ("x", {"default"}, {})


# Signals


@pytest.mark.django_db
def test_django_is_told_of_each_job_with_the_class_of_the_backend_as_sender() -> None:
    heard: list[tuple[Any, str]] = []

    def receive(sender: Any, task_result: Any, **kwargs: Any) -> None:
        heard.append((sender, task_result.id))

    task_enqueued.connect(receive, sender=JobsBackend)
    try:
        results = [tasks.noop.enqueue(), *tasks.noop.enqueue_many([((), {})]), async_to_sync(tasks.noop.aenqueue)()]
    finally:
        task_enqueued.disconnect(receive, sender=JobsBackend)

    assert heard == [(JobsBackend, result.id) for result in results]


# Several aliases


@pytest.mark.django_db
def test_a_job_remembers_the_alias_it_was_enqueued_with(settings: Any) -> None:
    settings.TASKS = {alias: {"BACKEND": OURS, "QUEUES": []} for alias in ("default", "other")}

    result = tasks.noop.using(backend="other", run_after=timedelta(hours=1)).enqueue()

    assert row(result.id).backend == result.backend == "other"
    assert task_backends["other"].get_result(result.id).task.backend == "other"


def test_an_unknown_alias_is_refused() -> None:
    with pytest.raises(InvalidTaskBackend):
        tasks.noop.using(backend="missing")
