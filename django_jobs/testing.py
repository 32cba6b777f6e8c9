"""For tests of projects that use django_jobs: run jobs in the test's own thread, and look at what was enqueued.

``run_jobs`` works inside Django's TestCase: it uses the test's connection and runs jobs for real, through the middleware,
retries, results and history of a worker. For tests that want no database, ``ImmediateBackend`` runs a task when it is
enqueued, and ``DummyBackend`` only keeps it; both know the options of our tasks.

With pytest the fixture ``jobs`` gives the three functions; put ``pytest_plugins = ["django_jobs.testing"]``, or
``from django_jobs.testing import jobs``, in a conftest.py.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.utils import timezone, translation

from . import conf
from .backend import JobResult
from .compat import BaseDummyBackend, BaseImmediateBackend, DjangoTask, TaskResultStatus
from .context import JobContext, reset_current_job, set_current_job
from .exceptions import DuplicateJob
from .task import Task, find_task, path_of
from .unique import key_of

_LONGEST_RUN = 10_000


class _LikeJobs:
    """What the backends for tests have in common with ``JobsBackend``: what it refuses, its results, many at once."""

    def enqueue(self, task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> JobResult:
        from .arguments import clean_arguments

        backend: Any = self
        backend.validate_task(task)
        stored = clean_arguments(task, args, kwargs)
        key = key_of(task, *copy.deepcopy(stored)) if isinstance(task, Task) else None
        return self._enqueue(task, *stored, key)

    def _enqueue(self, task: DjangoTask, args: list[Any], kwargs: dict[str, Any], key: str | None) -> JobResult:
        backend: Any = super()
        return _as_ours(backend.enqueue(task, args, kwargs))

    def enqueue_many(self, entries: Iterable[tuple[DjangoTask, Sequence[Any], Mapping[str, Any]]]) -> list[Any]:
        return [self.enqueue(task, args, kwargs) for task, args, kwargs in entries]


def _as_ours(result: Any, **changes: Any) -> JobResult:
    values = {each.name: getattr(result, each.name) for each in dataclasses.fields(result) if each.init}
    ours = JobResult(**values | changes)
    object.__setattr__(ours, "_return_value", result._return_value)
    return ours


class ImmediateBackend(_LikeJobs, BaseImmediateBackend):
    """Runs a task when it is enqueued, in the caller's thread, and keeps nothing. Neither ``run_after`` nor ``timeout`` counts.

    Every job is new: the one before has ended, and ``unique_for`` is not waited for either.
    """

    task_class = Task
    supports_defer = True

    def _execute_task(self, task_result: Any) -> None:
        # See Task.call().
        meta = copy.deepcopy(dict(getattr(task_result.task, "meta", {})))
        token = set_current_job(JobContext(task_result=task_result, meta=meta))
        try:
            backend: Any = super()
            if not getattr(task_result.task, "atomic", False):
                backend._execute_task(task_result)
                return
            with transaction.atomic(using=conf.database()):
                backend._execute_task(task_result)
                if task_result.status == TaskResultStatus.FAILED:
                    transaction.set_rollback(True, using=conf.database())
        finally:
            reset_current_job(token)


class DummyBackend(_LikeJobs, BaseDummyBackend):
    """Keeps what is enqueued in ``results``, and runs nothing: one job of each unique key, until ``clear()``."""

    task_class = Task

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        # By the id of the result.
        self._keys: dict[str, str] = {}

    def _enqueue(self, task: DjangoTask, args: list[Any], kwargs: dict[str, Any], key: str | None) -> JobResult:
        for place, kept in enumerate(self.results):
            if key is not None and self._keys.get(kept.id) == key:
                return self._meet(place, task, args, kwargs)
        result = super()._enqueue(task, args, kwargs, key)
        # A receiver of its signal may have enqueued another since.
        place = next(place for place, kept in enumerate(self.results) if kept.id == result.id)
        self.results[place] = copy.deepcopy(result)
        if key is not None:
            self._keys[result.id] = key
        return result

    def _meet(self, place: int, task: Any, args: list[Any], kwargs: dict[str, Any]) -> JobResult:
        kept: Any = self.results[place]
        if task.on_conflict == "raise":
            raise DuplicateJob(task.path, self._keys[kept.id], kept.id)
        if task.on_conflict == "replace" and task.path == path_of(kept.task):
            options = {name: getattr(task, name) for name in ("priority", "run_after", "delay", "meta", "max_attempts")}
            kept = _as_ours(kept, args=args, kwargs=kwargs, task=dataclasses.replace(kept.task, **options))
            self.results[place] = kept
        return _as_ours(copy.deepcopy(kept), is_new=False)

    def enqueue_many(self, entries: Iterable[tuple[DjangoTask, Sequence[Any], Mapping[str, Any]]]) -> list[Any]:
        before = list(self.results)
        try:
            return super().enqueue_many(entries)
        except BaseException:
            self.results[:] = before
            raise


def run_jobs(queue_name: str | None = None, *, limit: int = _LONGEST_RUN, include_scheduled: bool = False) -> int:
    """Run ready jobs, in their order, until none is left; return how many attempts were run.

    Jobs that these jobs enqueue are run too. Scheduled ones, retries among them, are run when they are due; with
    ``include_scheduled`` all are taken as due, but for a job that is not declared or whose arguments do not fit: that
    waits, as it does for a worker. Stops after ``limit`` attempts. Receivers are called before this returns. Nobody watches
    the time: a job runs as long as it takes, whatever its ``timeout``.

    A job that breaks the test's transaction with an error of the database is rolled back; a worker, outside of any
    transaction, would keep what it wrote before.
    """
    from .models import Worker

    worker_id = f"run-jobs-{os.getpid()}"
    Worker.objects.register(worker_id, timedelta(hours=1), hostname="tests", pid=os.getpid(), tags=["*"])
    attempts = 0
    postponed: set[int] = set()
    try:
        while attempts < limit and _run_next(worker_id, queue_name, include_scheduled, postponed):
            attempts += 1
    finally:
        Worker.objects.mark_stopped(worker_id)
    return attempts


def _run_next(worker_id: str, queue_name: str | None, include_scheduled: bool, postponed: set[int]) -> bool:
    from .models import Job
    from .models.admission import give_out
    from .models.completion import write_outcomes
    from .models.database import exclusive
    from .models.slot_round import Round
    from .worker.announcer import announce

    Job.objects.exclude(pk__in=postponed).stage() if include_scheduled else Job.objects.stage_due()
    queues = [queue_name] if queue_name is not None else _queues_in_order()
    with exclusive():
        claimed = Job.objects.claim(worker_id, queues, 1)
    if not claimed:
        # Slots that came free without a job's end: for the leader to give out, or at a commit that a test never sees.
        return Round().look(Job.objects.all()) > 0 and _run_next(worker_id, queue_name, include_scheduled, postponed)
    outcome = _execute(claimed[0])
    with exclusive():
        written = write_outcomes(worker_id, [outcome])
    postponed.update(done.job.id for done in written.done if done.verb == "postpone")
    give_out(Job.objects.all(), [done.job.concurrency_key for done in written.done if done.job.concurrency_key])
    for done in written.done:
        announce(done)
    return True


def _queues_in_order() -> list[str]:
    """Return the queues with ready jobs, the one first whose first job was enqueued first: tests expect no turns."""
    from .models import Job
    from .models.claim import in_order

    first = []
    for name in Job.objects.ready_queues():
        places = in_order(Job.objects.ready(), name).values_list("priority", "place")[:1]
        first += [(-priority, place, name) for priority, place in places]
    return [name for *_, name in sorted(first)]


def _execute(job: Any) -> Any:
    from .models.completion import write_progress
    from .worker.capacity import async_paths
    from .worker.execution import make_runner
    from .worker.middleware import load_factories
    from .worker.window import Window

    # Written afterwards: an async job shows its progress where no query may be made.
    shown: dict[int, Any] = {}
    runner = make_runner(load_factories(), shown.__setitem__)
    # What a job does to these must not be seen by the test, nor the test's by the job.
    with _transactions_kept_usable(), translation.override(translation.get_language()), timezone.override(None):
        translation.deactivate()
        if job.task_path in async_paths():
            outcome = async_to_sync(runner.aexecute)(job, Window())
        else:
            outcome = runner.execute(job, Window())
    write_progress(job.worker_id, shown)
    return outcome


@contextmanager
def _transactions_kept_usable() -> Iterator[None]:
    """Roll the test's transactions back to here where a job has broken them: else its outcome could not be written."""
    opened = [connection for connection in connections.all(initialized_only=True) if connection.in_atomic_block]
    savepoints: list[tuple[Any, Any]] = [(connection, connection.savepoint()) for connection in opened]
    yield
    for connection, savepoint in savepoints:
        if connection.needs_rollback or not connection.is_usable():
            connection.needs_rollback = False
            connection.savepoint_rollback(savepoint)
        connection.savepoint_commit(savepoint)


def assert_enqueued(
    task: DjangoTask | str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    times: int | None = None,
    **fields: Any,
) -> Any:
    """Assert that unfinished jobs of ``task`` wait, with these arguments and fields if given; return the last.

    ``fields`` are lookups on ``Job``, such as ``queue_name="mail"``. Without ``times`` at least one must be there.
    """
    found = list(_enqueued(task, args, kwargs, fields))
    if (times is None and not found) or (times is not None and len(found) != times):
        wanted = "at least one job" if times is None else f"{times} job{'' if times == 1 else 's'}"
        raise AssertionError(
            f"Expected {wanted} of {_describe(task, args, kwargs, fields)}, found {len(found)}. {_all()}"
        )
    return found[-1] if found else None


def assert_not_enqueued(
    task: DjangoTask | str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **fields: Any,
) -> None:
    """Assert that no unfinished job of ``task`` waits, with these arguments and fields if given."""
    found = list(_enqueued(task, args, kwargs, fields))
    if found:
        raise AssertionError(
            f"Expected no job of {_describe(task, args, kwargs, fields)}, found {len(found)}. {_all()}"
        )


def _enqueued(
    task: DjangoTask | str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> Any:
    from .arguments import clean_json
    from .models import Job

    jobs = Job.objects.unfinished().filter(task_path=_path(task), **fields).order_by("pk")
    # Compared here: databases differ in how they compare JSON.
    wanted_args = None if args is None else clean_json(list(args), "args")
    wanted_kwargs = None if kwargs is None else clean_json(dict(kwargs), "kwargs")
    return [
        job
        for job in jobs
        if (wanted_args is None or job.args == wanted_args) and (wanted_kwargs is None or job.kwargs == wanted_kwargs)
    ]


def _path(task: DjangoTask | str) -> str:
    return path_of(find_task(task) if isinstance(task, str) else task)


def _describe(task: DjangoTask | str, args: Any, kwargs: Any, fields: Mapping[str, Any]) -> str:
    parts = {"args": args, "kwargs": kwargs} | dict(fields)
    told = ", ".join(f"{name}={value!r}" for name, value in parts.items() if value is not None)
    return f"{_path(task)}({told})"


def _all() -> str:
    from .models import Job

    waiting = [f"{job.task_path}(*{job.args}, **{job.kwargs})" for job in Job.objects.unfinished().order_by("pk")[:20]]
    return f"Enqueued: {', '.join(waiting) or 'nothing'}."


try:
    import pytest
except ImportError:
    # A project without pytest uses the functions.
    pass
else:

    @pytest.fixture
    def jobs(db: None) -> SimpleNamespace:
        """``jobs.run()``, ``jobs.assert_enqueued(...)``, ``jobs.assert_not_enqueued(...)``; uses the database."""
        return SimpleNamespace(run=run_jobs, assert_enqueued=assert_enqueued, assert_not_enqueued=assert_not_enqueued)
