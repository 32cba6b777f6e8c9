"""The backend for Django's tasks framework: ``TASKS = {"default": {"BACKEND": "django_jobs.backend.JobsBackend"}}``.

Backends are made while task modules are imported, one per thread and alias, so nothing here touches the ORM
before a method is called.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from asgiref.sync import sync_to_async
from django.core.checks import CheckMessage, Error

from . import signals
from .compat import (
    BaseTaskBackend,
    DjangoTask,
    InvalidTask,
    InvalidTaskBackend,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_backends,
    task_enqueued,
)
from .exceptions import UnknownTask
from .options import LONGEST_QUEUE_NAME, is_name
from .states import ERROR_OUTCOMES, JobState
from .task import Task, find_task

if TYPE_CHECKING:
    from datetime import datetime

    from .enqueue import Inserted
    from .models import Job
    from .models.insert import NewJob

Entry = tuple[DjangoTask, Sequence[Any], Mapping[str, Any]]

STATUS = {
    JobState.WAITING: TaskResultStatus.READY,
    JobState.BLOCKED: TaskResultStatus.READY,
    JobState.SCHEDULED: TaskResultStatus.READY,
    JobState.READY: TaskResultStatus.READY,
    JobState.RUNNING: TaskResultStatus.RUNNING,
    JobState.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
    JobState.FAILED: TaskResultStatus.FAILED,
    JobState.CANCELLED: TaskResultStatus.FAILED,
}

# A waiting caller looks often at first, for jobs of milliseconds, and then four times a second.
_FIRST_LOOK, _LONGEST_PAUSE = 0.01, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult(TaskResult):  # type: ignore[misc]
    """Django's TaskResult of a job; its id is ``str(job.pk)``.

    ``is_new`` is False where ``enqueue`` inserted nothing, since a job had the unique key: it is the result of that one.
    """

    is_new: bool = field(default=True, compare=False)

    def wait(self, timeout: float | None = None) -> JobResult:
        """Block until the job has finished, refresh this result and return it.

        ``timeout`` is in seconds; None waits for ever. Raise TimeoutError when it has passed. Not for use inside
        the transaction that enqueued the job: no worker sees the job before that has committed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_LOOK
        self.refresh()
        while not self.is_finished:
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"Job {self.id} is {self.status} after {timeout:g} s.")
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            self.refresh()
        return self

    def cancel(self) -> bool:
        """Cancel the job, or ask it to stop if it is running. False if it has finished already."""
        from .models import Job

        return bool(Job.objects.filter(pk=self.id).cancel())


class JobsBackend(BaseTaskBackend):
    """Stores tasks as jobs in the database, for ``runworker`` to run."""

    task_class = Task
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return what is wrong with this backend's entry in TASKS."""
        entry = task_backends.settings.get(self.alias, {})
        messages: list[CheckMessage] = []
        # A subclass may have options of its own.
        if type(self) is JobsBackend:
            keys = {f"TASKS[{self.alias!r}]": entry.keys() - {"BACKEND", "QUEUES", "OPTIONS"}}
            keys[f"TASKS[{self.alias!r}]['OPTIONS']"] = set(entry.get("OPTIONS") or ())
            messages = [
                Error(
                    f"{place} has a key {key!r}, which JobsBackend does not know.",
                    hint="Take it out; the settings of django_jobs go into DJANGO_JOBS.",
                    id="django_jobs.E009",
                )
                for place, unknown in keys.items()
                for key in sorted(unknown, key=str)
            ]
        if isinstance(entry.get("QUEUES"), str):
            fact = f"TASKS[{self.alias!r}]['QUEUES'] is the text {entry['QUEUES']!r} and not a list of names."
            messages.append(Error(fact, hint="Write a list; an empty one allows every queue.", id="django_jobs.E010"))
        return messages

    def validate_task(self, task: DjangoTask) -> None:
        """Raise InvalidTask for a task that cannot become a job."""
        super().validate_task(task)
        if not is_name(task.queue_name, LONGEST_QUEUE_NAME):
            raise InvalidTask(
                f"The name of a queue is a text of 1 to {LONGEST_QUEUE_NAME} characters, not {task.queue_name!r}."
            )

    def enqueue(self, task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> JobResult:
        """Write the job in the caller's transaction, with one INSERT, and return its result.

        If a job has its unique key: that one's, or raise DuplicateJob; see ``Task`` for ``on_conflict``.
        """
        from .enqueue import insert

        self.validate_task(task)
        inserted = insert(task, args, kwargs, self.alias)
        if inserted.others:
            return existing_result(inserted.others[0], task)
        result = new_result(task, inserted.jobs[0], inserted.ids[0], inserted.enqueued_at[0])
        if signals.is_heard(task_enqueued):
            signals.send(task_enqueued, type(self), task_result=result)
        return result

    def enqueue_many(self, entries: Iterable[Entry]) -> JobResults:
        """Write one job per ``(task, args, kwargs)``, 1,000 to an INSERT, and return their results in order."""
        from .enqueue import insert_many

        entries = list(entries)
        for task in {id(task): task for task, _, _ in entries}.values():
            self.validate_task(task)
        results = JobResults([task for task, _, _ in entries], insert_many(entries, self.alias))
        if signals.is_heard(task_enqueued):
            for result in results.of_new_jobs():
                signals.send(task_enqueued, type(self), task_result=result)
        return results

    def get_result(self, result_id: str) -> JobResult:
        """Return the result of a job. Raise TaskResultDoesNotExist, also when its task is no longer declared."""
        from .models import Job

        try:
            job = Job.objects.select_related("result").get(pk=_job_id(result_id))
            return result_of(job)
        except (Job.DoesNotExist, ValueError, OverflowError, UnknownTask) as error:
            raise TaskResultDoesNotExist(result_id) from error

    async def aget_result(self, result_id: str) -> JobResult:
        """See get_result()."""
        return await sync_to_async(self.get_result, thread_sensitive=True)(result_id)


class JobResults(Sequence[JobResult]):
    """The results of jobs that were enqueued together, in order: as a list, but each is made when it is looked at."""

    def __init__(self, tasks: Sequence[DjangoTask], inserted: Inserted) -> None:
        self._tasks = tasks
        self._inserted = inserted
        # By place: what was once looked at stays the same object.
        self._made: dict[int, JobResult] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, place: int) -> JobResult: ...
    @overload
    def __getitem__(self, place: slice) -> list[JobResult]: ...
    def __getitem__(self, place: int | slice) -> JobResult | list[JobResult]:
        # A range counts, slices and refuses as a list does.
        found = range(len(self))[place]
        return [self._at(each) for each in found] if isinstance(found, range) else self._at(found)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, list | JobResults) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self):,} jobs>"

    def of_new_jobs(self) -> Iterator[JobResult]:
        """Yield the results of the jobs that were inserted, and not of those that had a unique key before."""
        return (self._at(place) for place in range(len(self)) if place not in self._inserted.others)

    def _at(self, place: int) -> JobResult:
        result = self._made.get(place)
        if result is None:
            result = self._made[place] = self._make(place)
        return result

    def _make(self, place: int) -> JobResult:
        inserted = self._inserted
        if place in inserted.others:
            return existing_result(inserted.others[place], self._tasks[place])
        return new_result(self._tasks[place], inserted.jobs[place], inserted.ids[place], inserted.enqueued_at[place])


def new_result(task: DjangoTask, job: NewJob, pk: int, enqueued_at: datetime) -> JobResult:
    """Return the result of a job that has just been inserted, without a query."""
    return JobResult(
        task=task,
        id=str(pk),
        status=TaskResultStatus.READY,
        enqueued_at=enqueued_at,
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=json.loads(job.args),
        kwargs=json.loads(job.kwargs),
        backend=job.options.backend,
        errors=[],
        worker_ids=[],
    )


def existing_result(job: Job, task: DjangoTask) -> JobResult:
    """Return the result of the job that had the unique key of a new one; of a task that may be declared elsewhere only."""
    try:
        known = _task_of(job)
    except UnknownTask:
        known = task
    return _result(job, known, is_new=False)


def result_of(job: Job) -> JobResult:
    """Return the result of a stored job. Raise UnknownTask if its task is not declared here."""
    return _result(job, _task_of(job), is_new=True)


def _result(job: Job, task: DjangoTask, is_new: bool) -> JobResult:
    attempts = sorted(job.attempts.all(), key=lambda attempt: attempt.number)
    errors = [
        TaskError(exception_class_path=attempt.exception_class, traceback=attempt.traceback)
        for attempt in attempts
        if attempt.outcome in ERROR_OUTCOMES
    ]
    if job.state == JobState.CANCELLED:
        errors.append(TaskError(exception_class_path="django_jobs.exceptions.JobCancelled", traceback=""))
    worker_ids = [attempt.worker_id for attempt in attempts]
    if job.state in (JobState.RUNNING, JobState.SUCCEEDED):
        worker_ids.append(job.worker_id)
    result = JobResult(
        task=task,
        id=str(job.pk),
        status=STATUS[JobState(job.state)],
        enqueued_at=job.enqueued_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        last_attempted_at=job.last_attempted_at,
        args=job.args,
        kwargs=job.kwargs,
        backend=job.backend,
        errors=errors,
        worker_ids=worker_ids,
        is_new=is_new,
    )
    if job.state == JobState.SUCCEEDED:
        object.__setattr__(result, "_return_value", job.result.value if hasattr(job, "result") else None)
    return result


def _task_of(job: Job) -> DjangoTask:
    task = find_task(job.task_path)
    changes: dict[str, Any] = {"priority": job.priority, "queue_name": job.queue_name, "run_after": job.run_after}
    try:
        return task.using(**changes, backend=job.backend)
    except (InvalidTask, InvalidTaskBackend):
        # TASKS no longer has the backend, or no longer this queue in it; the result can be read all the same.
        return task


def _job_id(result_id: str) -> int:
    """Return the key of the job's row. Raise ValueError for what is no id, also where int() would take it."""
    if not (isinstance(result_id, str) and result_id.isascii() and result_id.isdigit()):
        raise ValueError(f"{result_id!r} is not the id of a job.")
    return int(result_id)
