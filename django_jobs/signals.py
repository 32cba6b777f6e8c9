"""The signals of django_jobs: the hooks for plugins.

Each is sent with ``send_robust`` after the row is written: a receiver that raises is logged and
harms nothing. The sender is the model class ``Job``, ``Worker`` or ``Queue``, except for
``leader_gained`` and ``leader_lost``, whose sender is ``Lease``. A worker sends its job signals
from a thread of their own, after the transaction that wrote the outcome has committed, in the order of
the outcomes; ``job_started`` comes from the thread that runs the job, just before the task's function.

Arguments:

- ``job_enqueued(job)``: the saved ``Job``; inside the caller's transaction, which may still roll back.
- ``job_started(job_id, task_path, queue_name, attempt, worker_id)``.
- ``job_succeeded``, ``job_failed``, ``job_retrying``, ``job_snoozed``, ``job_cancelled``: what
  ``job_started`` has, and ``duration`` (seconds the function ran), ``exception`` (None on success) and,
  for retrying and snoozed, ``delay`` (seconds). ``job_retrying`` is also sent for a job that this worker's code cannot run,
  and which waits for another: then ``exception`` says why.
- ``job_cancelled`` for a job that had not started: ``job_id`` and None for the rest.
- ``job_rescued(job_id, task_path, queue_name, attempt, worker_id, state)``: ``state`` is where the
  job went: ready, scheduled, failed or cancelled.
- ``jobs_pruned(count)``.
- ``worker_started``, ``worker_heartbeat``, ``worker_stopping``, ``worker_stopped``, ``worker_lost``: ``worker_id``.
- ``leader_gained``, ``leader_lost``: ``worker_id`` of the supervisor.
- ``schedule_fired(schedule, job_id, scheduled_for)``: the name, the id of the new job, and the moment, which is None for
  ``run_now``. The sender is ``Schedule``.
- ``queue_paused(queue, reason)``, ``queue_resumed(queue)``: ``queue`` is the name.

Django's own ``task_enqueued``, ``task_started`` and ``task_finished`` are sent too, with the class of the
backend as sender.
"""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.dispatch import Signal
from django.utils.log import RequireDebugFalse, RequireDebugTrue

from .compat import LOG_RECEIVERS, framework_logger

logger = logging.getLogger("django_jobs")

job_enqueued = Signal()
job_started = Signal()
job_succeeded = Signal()
job_failed = Signal()
job_retrying = Signal()
job_snoozed = Signal()
job_cancelled = Signal()
job_rescued = Signal()
jobs_pruned = Signal()
worker_started = Signal()
worker_heartbeat = Signal()
worker_stopping = Signal()
worker_stopped = Signal()
worker_lost = Signal()
leader_gained = Signal()
leader_lost = Signal()
queue_paused = Signal()
queue_resumed = Signal()
schedule_fired = Signal()


def is_heard(signal: Signal, *, failed: bool = False) -> bool:
    """Say whether anybody would notice ``signal``, so that its arguments are made only then.

    Django connects receivers of its own to ``task_enqueued``, ``task_started`` and ``task_finished``, which only log.
    They do not count while their record would be written nowhere: the logger is not enabled for its level, or every
    handler refuses it by its level or because DEBUG is off, as Django's default console handler does. ``failed`` asks
    for the record of a failed job, which ``task_finished`` logs as an error. Takes half a microsecond, three where
    handlers have to be asked; any thread may call it.
    """
    # Taken once: another thread may connect or disconnect meanwhile.
    receivers = list(signal.receivers)
    if not receivers:
        return False
    own = LOG_RECEIVERS.get(signal)
    # An entry begins with its key, which begins with the id of the receiver. Two entries: the other one counts, or is
    # dead and not yet forgotten.
    if own is None or len(receivers) > 1 or receivers[0][0][0] != id(own.receiver):
        return True
    return _would_be_logged(framework_logger, own.on_failure if failed else own.level)


def _would_be_logged(source: logging.Logger, level: int) -> bool:
    if not source.isEnabledFor(level):
        return False
    # A filter of the logger may do anything with a record; so may Sentry and its like, which replace callHandlers to
    # see the records that no handler takes.
    if source.filters or type(source).callHandlers.__module__ != logging.__name__:
        return True
    current: logging.Logger | None = source
    has_handlers = False
    while current is not None:
        has_handlers = has_handlers or bool(current.handlers)
        if any(_would_take(handler, level) for handler in current.handlers):
            return True
        current = current.parent if current.propagate else None
    return not has_handlers and logging.lastResort is not None and level >= logging.lastResort.level


def _would_take(handler: logging.Handler, level: int) -> bool:
    if level < handler.level or isinstance(handler, logging.NullHandler):
        return False
    # Any filter but Django's two may look at the record, and let it pass.
    refusing = RequireDebugFalse if settings.DEBUG else RequireDebugTrue
    return not any(type(condition) is refusing for condition in handler.filters)


def send(signal: Signal, sender: type, **arguments: Any) -> None:
    """Send ``signal`` to its receivers, if any; log each receiver that raised."""
    if not signal.receivers:
        return
    try:
        responses = signal.send_robust(sender, **arguments)
    except SystemExit as error:
        logger.error("A signal receiver raised %r.", error, exc_info=error)
        return
    except AttributeError as error:
        # Django's own report of a receiver that raised fails for one without __qualname__, such as a partial.
        logger.error("A signal receiver raised %r.", error.__context__, exc_info=error)
        return
    for receiver, response in responses:
        if isinstance(response, Exception):
            logger.error("The signal receiver %r raised %r.", receiver, response, exc_info=response)
