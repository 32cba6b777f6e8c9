"""How one job runs: from a claimed job to an outcome. Never raises, and never touches the jobs tables (but see ``atomic``).

``execute`` (for plain functions, in a thread) and ``aexecute`` (for ``async def``, on the event loop) call the task through
the middleware; ``judge`` turns what was raised into a verb.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import conf, signals
from ..arguments import clean_json
from ..backend import JobResult, JobsBackend
from ..compat import (
    DjangoTask,
    InvalidTask,
    InvalidTaskBackend,
    TaskError,
    TaskResultStatus,
    task_backends,
    task_started,
)
from ..context import JobContext, Progress, current_job, reset_current_job, set_current_job
from ..exceptions import (
    Cancel,
    Fail,
    Interrupt,
    InvalidArgument,
    InvalidOption,
    InvalidResult,
    JobCancelled,
    JobTimeout,
    Retry,
    Snooze,
    UnknownTask,
)
from ..models import Job
from ..outcomes import ClaimedJob, Outcome, Unreadable
from ..retries import to_seconds
from ..task import DEFAULT_BACKOFF, Task, find_task
from .atomic import is_atomic, run_atomically
from .failures import describe_failure
from .middleware import AsyncCall, Call, Factory, build_async_chain, build_chain
from .unfit import is_unfit, longer_each_time
from .window import Window, as_timeout

logger = logging.getLogger("django_jobs")


@dataclass(frozen=True)
class Runner:
    """Runs jobs one at a time per call; shared by all threads.

    ``report`` takes a job's progress; ``needs_thread`` says that ``aexecute`` needs one for each job.
    """

    call: Call
    acall: AsyncCall
    report: Callable[[int, Progress], None]
    needs_thread: bool = False

    def execute(self, job: ClaimedJob, window: Window) -> Outcome:
        """Run one attempt of a job in this thread."""
        try:
            attempt = _Attempt(job, window, self.report)
        except BaseException as error:  # noqa: BLE001 - the row is bad, and no other attempt would find it better
            return cannot_begin(job, error)
        token = set_current_job(attempt.context)
        try:
            attempt.announce_start()
            if is_atomic(job):
                return run_atomically(job, lambda: attempt.returned(self._call(job, window)))
            value = self._call(job, window)
        except BaseException as error:  # noqa: BLE001 - what a job raises is its failure, not ours
            return attempt.failed(error)
        else:
            return attempt.returned(value)
        finally:
            reset_current_job(token)

    def _call(self, job: ClaimedJob, window: Window) -> Any:
        try:
            window.open(job)
            return self.call(job)
        finally:
            window.close()

    async def aexecute(self, job: ClaimedJob, window: Window) -> Outcome:
        """Run one attempt of a job on this event loop."""
        try:
            attempt = _Attempt(job, window, self.report)
        except BaseException as error:  # noqa: BLE001 - the row is bad, and no other attempt would find it better
            return cannot_begin(job, error)
        token = set_current_job(attempt.context)
        try:
            attempt.announce_start()
            value = await self._acall(job, window)
        except BaseException as error:  # noqa: BLE001 - what a job raises is its failure, not ours
            return attempt.failed(_reason_to_stop(error, window))
        else:
            return attempt.returned(value)
        finally:
            reset_current_job(token)

    async def _acall(self, job: ClaimedJob, window: Window) -> Any:
        try:
            window.open(job)
            return await self.acall(job)
        finally:
            window.close()


def cannot_begin(job: ClaimedJob, error: BaseException) -> Outcome:
    """Return the outcome of a job whose row is so odd that not even its context can be made."""
    return Outcome(job, "fail", failure=describe_failure(error), exception=error)


def make_runner(factories: list[Factory], report: Callable[[int, Progress], None]) -> Runner:
    """Return a runner with the middleware built around the call of the task."""
    chain = build_async_chain(factories, acall_task)
    return Runner(build_chain(factories, call_task), chain.call, report, chain.needs_thread)


def call_task(job: ClaimedJob) -> Any:
    """Call the task's function: the innermost of the chain."""
    task = find_task(job.task_path)
    return task.call(*_arguments(task, job), **job.kwargs)


async def acall_task(job: ClaimedJob) -> Any:
    """Call the task's ``async def`` function: the innermost of the asynchronous chain."""
    task = find_task(job.task_path)
    return await task.acall(*_arguments(task, job), **job.kwargs)


def _arguments(task: DjangoTask, job: ClaimedJob) -> list[Any]:
    return [current_job(), *job.args] if task.takes_context else job.args


def _reason_to_stop(error: BaseException, window: Window) -> BaseException:
    """Return the interrupt behind a cancelled coroutine, else the error itself."""
    if isinstance(error, asyncio.CancelledError):
        return window.asked_to_stop() or error
    return error


class _Attempt:
    """One attempt while it runs: what its outcome is made of."""

    def __init__(self, job: ClaimedJob, window: Window, report: Callable[[int, Progress], None]) -> None:
        for value in (job.args, job.kwargs):
            if isinstance(value, Unreadable):
                value.refuse()
        self.job, self.window = job, window
        self.started = time.monotonic()
        self.meta = copy.deepcopy(job.meta) if job.meta and isinstance(job.meta, dict) else {}
        self.context = JobContext(
            task_result=partial(result_of_running, job),
            job_id=job.id,
            meta=self.meta,
            number=job.attempt,
            report=report,
            asked_to_stop=window.asked_to_stop,
            time_left=window.time_left,
        )

    def announce_start(self) -> None:
        job = self.job
        if signals.job_started.receivers:
            told = {name: getattr(job, name) for name in ("task_path", "queue_name", "attempt", "worker_id")}
            signals.send(signals.job_started, Job, job_id=job.id, **told)
        if signals.is_heard(task_started) and self.context.task_result.task is not None:
            signals.send(task_started, backend_class(job), task_result=self.context.task_result)

    def returned(self, value: Any) -> Outcome:
        if self.window.is_late:
            return self.failed(JobTimeout())
        duration = time.monotonic() - self.started
        try:
            result = None if value is None else clean_result(value, self.job)
        except InvalidResult as error:
            return self._outcome(verb="fail", duration=duration, failure=describe_failure(error), exception=error)
        return self._outcome(verb="succeed", duration=duration, result=result)

    def failed(self, error: BaseException) -> Outcome:
        duration = time.monotonic() - self.started
        try:
            task_result = self.context.task_result
        except BaseException:  # noqa: BLE001 - the row is bad, and no other attempt would find it better
            return cannot_begin(self.job, error)
        if self.window.is_late or isinstance(error, JobTimeout):
            error = as_timeout(error, self.job)
        verb, delay = judge(error, self.job, task_result)
        failure = describe_failure(error)
        return self._outcome(verb=verb, duration=duration, delay=delay, failure=failure, exception=error)

    def _outcome(self, **values: Any) -> Outcome:
        outcome = Outcome(job=self.job, began=self.started, **values)
        if not (self.meta or self.job.meta):
            return outcome
        try:
            meta = as_json(self.meta, "meta")
        except InvalidArgument as error:
            # The job's work is done; what it noted beside it is not worth failing it for.
            logger.warning("Job %s: its meta is not saved: %s", self.job.id, error)
            return outcome
        return outcome if meta == self.job.meta else outcome._replace(meta=meta)


def judge(error: BaseException, job: ClaimedJob, task_result: Any) -> tuple[str, float]:
    """Return the verb that an attempt which raised ``error`` ends with, and its delay in seconds."""
    has_attempts_left = job.attempt < job.max_attempts
    match error:
        case Interrupt() if not isinstance(error, JobTimeout):
            return ("cancel" if isinstance(error, JobCancelled) else "release"), 0.0
        case Cancel():
            return "cancel", 0.0
        case Fail():
            return "fail", 0.0
        case Snooze():
            return "snooze", _usable(error.delay, job, task_result)
        case _ if is_unfit(error, job):
            return "postpone", longer_each_time(job)
        case Retry() if has_attempts_left:
            delay = error.delay if error.delay is not None else _backoff(error, job, task_result)
            return ("fail", 0.0) if delay is None else ("retry", _usable(delay, job, task_result))
    if not has_attempts_left or not _may_retry(error, job):
        return "fail", 0.0
    delay = _backoff(error, job, task_result)
    return ("fail", 0.0) if delay is None else ("retry", _usable(delay, job, task_result))


def _may_retry(error: BaseException, job: ClaimedJob) -> bool:
    task = declared_task(job)
    if not isinstance(task, Task):
        return not isinstance(error, Retry)
    return isinstance(error, task.retry_on) and not isinstance(error, task.ignore_on)


def _backoff(error: BaseException, job: ClaimedJob, task_result: Any) -> Any:
    """Return what the task's backoff says; the default's answer if it raises."""
    task = declared_task(job)
    backoff = task.backoff if isinstance(task, Task) else DEFAULT_BACKOFF
    try:
        return backoff(error, task_result)
    except BaseException:
        logger.exception("Job %s: the backoff of %s raised; the default is used.", job.id, job.task_path)
        return DEFAULT_BACKOFF(error, task_result)


def _usable(delay: Any, job: ClaimedJob, task_result: Any) -> float:
    """Return the delay in seconds; the default backoff's, with a warning, for one that cannot work."""
    try:
        return to_seconds(delay)
    except InvalidOption as error:
        logger.warning("Job %s of %s: %s The default backoff is used.", job.id, job.task_path, error)
        return to_seconds(DEFAULT_BACKOFF(error, task_result) or 0)


def clean_result(value: Any, job: ClaimedJob) -> Any:
    """Return a task's return value as JSON holds it. Raise InvalidResult for what it cannot hold."""
    try:
        cleaned = as_json(value, f"The return value of {job.task_path}")
    except InvalidArgument as error:
        raise InvalidResult(f"{error} The job is not run again: it would return the same.") from error
    limit, size = conf.read("MAX_RESULT_BYTES"), len(json.dumps(cleaned))
    if size > limit:
        raise InvalidResult(
            f"The return value of {job.task_path} takes {size:,} bytes as JSON, more than MAX_RESULT_BYTES ({limit:,}). "
            "Store the data elsewhere and return its key."
        )
    return cleaned


def as_json(value: Any, what: str) -> Any:
    """Return ``value`` as JSON holds it. Raise InvalidArgument also where the value's own code raises anything else."""
    try:
        return clean_json(value, what)
    except InvalidArgument:
        raise
    except BaseException as error:
        told = f"{type(error).__name__}: {describe_failure(error).message}"
        raise InvalidArgument(f"{what} cannot be stored as JSON: reading it raised {told}.") from error


def result_of_running(job: ClaimedJob, **changes: Any) -> JobResult:
    """Return the TaskResult of a job that this worker holds, from memory."""
    values: dict[str, Any] = {
        "task": task_as_enqueued(job),
        "id": str(job.id),
        "status": TaskResultStatus.RUNNING,
        "enqueued_at": job.enqueued_at,
        "started_at": job.started_at,
        "finished_at": None,
        "last_attempted_at": job.last_attempted_at,
        "args": _readable(job.args, []),
        "kwargs": _readable(job.kwargs, {}),
        "backend": job.backend,
        "errors": [
            TaskError(exception_class_path=past.exception_class, traceback=past.traceback)
            for past in job.history
            if past.exception_class
        ],
        "worker_ids": [*(past.worker_id for past in job.history), job.worker_id],
    }
    return JobResult(**(values | changes))


def _readable(value: Any, otherwise: Any) -> Any:
    return otherwise if isinstance(value, Unreadable) else value


def backend_class(job: ClaimedJob) -> type:
    """Return the class of the backend that the job was enqueued with: the sender of Django's signals."""
    try:
        return type(task_backends[job.backend])
    except InvalidTaskBackend:
        # The alias is gone from TASKS since; the job is ours all the same.
        return JobsBackend


def task_as_enqueued(job: ClaimedJob) -> Any:
    """Return the job's task with the options that it was enqueued with; None if it is not declared here."""
    task = declared_task(job)
    options = {name: getattr(job, name) for name in ("priority", "queue_name", "run_after", "backend")}
    if task is None or all(getattr(task, name) == value for name, value in options.items()):
        return task
    try:
        return task.using(**options)
    except (InvalidTask, InvalidTaskBackend):
        # TASKS no longer has the backend, or no longer this queue in it.
        return task


def declared_task(job: ClaimedJob) -> Any:
    """Return the job's task; None if it is not declared here: the call says so."""
    try:
        return find_task(job.task_path)
    except UnknownTask:
        return None
