"""Telling receivers what became of jobs, after it is written, in a thread of its own.

A slow receiver delays other receivers, never a claim or a completion. While more than ``MOST_WAITING`` outcomes
wait to be told, the exchange claims nothing, so that memory stays bounded.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Any

from django.db import connections
from django.utils import timezone

from .. import signals
from ..compat import TaskError, TaskResultStatus, task_finished
from ..models import Job
from ..outcomes import Outcome
from .execution import backend_class, declared_task, result_of_running
from .service import Service
from .sessions import Sessions

logger = logging.getLogger("django_jobs")

MOST_WAITING = 10_000

_SIGNALS = {
    "succeed": signals.job_succeeded,
    "fail": signals.job_failed,
    "retry": signals.job_retrying,
    "snooze": signals.job_snoozed,
    "postpone": signals.job_retrying,
    "cancel": signals.job_cancelled,
}
_FINISHED = {
    "succeed": TaskResultStatus.SUCCESSFUL,
    "fail": TaskResultStatus.FAILED,
    "cancel": TaskResultStatus.FAILED,
}
_CANCELLED = "django_jobs.exceptions.JobCancelled"


class Announcer(Service):
    name = "announcer"

    def __init__(self, on_death: Any = None) -> None:
        super().__init__(on_death)
        self._inbox: SimpleQueue[Outcome] = SimpleQueue()
        self._sessions = Sessions()

    @property
    def is_behind(self) -> bool:
        return self._inbox.qsize() > MOST_WAITING

    def tell(self, outcomes: list[Outcome]) -> None:
        """Take outcomes that have been written; returns at once. Successes that nobody would hear of are not kept."""
        if outcomes and not _hears_of_success():
            outcomes = [outcome for outcome in outcomes if outcome.verb != "succeed"]
        for outcome in outcomes:
            self._inbox.put(outcome)
        if outcomes:
            self.wake()

    def run_once(self) -> float:
        told = False
        while (outcome := self._next()) is not None:
            told = True
            # What a receiver leaves behind must not meet those of the next outcome.
            with self._sessions.clean():
                announce(outcome)
        if told:
            # Receivers may have used the database; an idle announcer holds no connection.
            connections.close_all()
        return 60.0

    def close(self) -> None:
        self.run_once()
        super().close()

    def _next(self) -> Outcome | None:
        try:
            return self._inbox.get_nowait()
        except Empty:
            return None


def _hears_of_success() -> bool:
    is_told = signals.is_heard(signals.job_succeeded) or signals.is_heard(task_finished)
    return is_told or logger.isEnabledFor(logging.DEBUG)


def announce(outcome: Outcome) -> None:
    """Log how an attempt ended and send the signals for it. Receivers that raise are logged."""
    job = outcome.job
    _log(outcome)
    signal = _SIGNALS.get(outcome.verb)
    if signal is not None and signal.receivers:
        told = {name: getattr(job, name) for name in ("task_path", "queue_name", "attempt", "worker_id")}
        told |= {"duration": outcome.duration, "exception": outcome.exception}
        if outcome.verb in ("retry", "snooze", "postpone"):
            told["delay"] = outcome.delay
        signals.send(signal, Job, job_id=job.id, **told)
    if outcome.verb in _FINISHED and signals.is_heard(task_finished, failed=outcome.verb != "succeed"):
        _send_task_finished(outcome)


def _send_task_finished(outcome: Outcome) -> None:
    job = outcome.job
    if declared_task(job) is None:
        # Django's receivers need a task.
        return
    result = result_of_running(job, status=_FINISHED[outcome.verb], finished_at=_ended_at(outcome))
    if outcome.verb == "succeed":
        object.__setattr__(result, "_return_value", outcome.result)
    else:
        # As a cancelled job's result has it, whoever asked for it.
        cls = _CANCELLED if outcome.verb == "cancel" else outcome.failure.exception_class
        result.errors.append(TaskError(exception_class_path=cls, traceback=outcome.failure.traceback))
    if outcome.exception is None:
        signals.send(task_finished, backend_class(job), task_result=result)
        return
    trace = outcome.exception.__traceback__
    try:
        raise outcome.exception
    except type(outcome.exception):
        # Django's own receiver reads the exception that is being handled; raising it here is no part of its story.
        outcome.exception.__traceback__ = trace
        signals.send(task_finished, backend_class(job), task_result=result)


def _ended_at(outcome: Outcome) -> datetime:
    """Return when the attempt ended, by the worker's clock; the row has the database's."""
    if outcome.began is None:
        return timezone.now()
    return timezone.now() - timedelta(seconds=time.monotonic() - outcome.began - outcome.duration)


def _log(outcome: Outcome) -> None:
    job, extra = outcome.job, {"job_id": outcome.job.id, "task": outcome.job.task_path}
    label = f"Job {job.id} of {job.task_path}, attempt {job.attempt} of {job.max_attempts}"
    match outcome.verb:
        case "succeed":
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("%s: succeeded in %.3f s", label, outcome.duration, extra=extra)
        case "fail":
            logger.error("%s: failed: %s", label, _reason(outcome), extra=extra)
        case "retry":
            logger.warning("%s: failed, again in %.1f s: %s", label, outcome.delay, _reason(outcome), extra=extra)
        case "postpone":
            logger.warning(
                "%s: this code cannot run it, it waits for %.1f s: %s",
                label,
                outcome.delay,
                _reason(outcome),
                extra=extra,
            )
        case "snooze":
            logger.info("%s: snoozed for %.1f s", label, outcome.delay, extra=extra)
        case "cancel":
            logger.info("%s: cancelled", label, extra=extra)
        case "release":
            logger.info("%s: given back", label, extra=extra)


def _reason(outcome: Outcome) -> str:
    return f"{outcome.failure.exception_class}: {outcome.failure.message[:500]}"
