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
  for retrying and snoozed, ``delay`` (seconds).
- ``job_cancelled`` for a job that had not started: ``job_id`` and None for the rest.
- ``job_rescued(job_id, task_path, queue_name, attempt, worker_id, state)``: ``state`` is where the
  job went: ready, failed or cancelled.
- ``jobs_pruned(count)``.
- ``worker_started``, ``worker_heartbeat``, ``worker_stopping``, ``worker_stopped``, ``worker_lost``: ``worker_id``.
- ``leader_gained``, ``leader_lost``: ``worker_id`` of the supervisor.
- ``queue_paused(queue, reason)``, ``queue_resumed(queue)``: ``queue`` is the name.

Django's own ``task_enqueued``, ``task_started`` and ``task_finished`` are sent too, with the class of the
backend as sender.
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

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
