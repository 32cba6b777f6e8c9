"""The one place that knows where the tasks framework lives.

Django 6.0 and later ship it as ``django.tasks``; on Django 5.2 it is the backport ``django_tasks``
(distribution ``django-tasks``). Everything else imports these names from here.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import django
from django.core.exceptions import ImproperlyConfigured
from django.dispatch import Signal

PACKAGE = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"


def _import(module: str) -> Any:
    try:
        return importlib.import_module(f"{PACKAGE}{module}")
    except ModuleNotFoundError as error:
        if error.name == "django_tasks":
            raise ImproperlyConfigured(
                f"Django {django.get_version()} has no tasks framework of its own. "
                "Install its backport: pip install 'django-tasks>=0.12'."
            ) from error
        raise


if TYPE_CHECKING:
    from django.tasks import task_backends
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.backends.dummy import DummyBackend as BaseDummyBackend
    from django.tasks.backends.immediate import ImmediateBackend as BaseImmediateBackend
    from django.tasks.base import Task as DjangoTask
    from django.tasks.base import TaskContext, TaskError, TaskResult, TaskResultStatus
    from django.tasks.exceptions import (
        InvalidTask,
        InvalidTaskBackend,
        TaskResultDoesNotExist,
        TaskResultMismatch,
    )
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json
else:
    _base = _import(".base")
    _exceptions = _import(".exceptions")
    _signals = _import(".signals")
    _json = importlib.import_module("django.utils.json") if PACKAGE == "django.tasks" else _import(".utils")

    task_backends = _import("").task_backends
    DjangoTask = _base.Task
    TaskContext = _base.TaskContext
    TaskError = _base.TaskError
    TaskResult = _base.TaskResult
    TaskResultStatus = _base.TaskResultStatus
    BaseTaskBackend = _import(".backends.base").BaseTaskBackend
    BaseImmediateBackend = _import(".backends.immediate").ImmediateBackend
    BaseDummyBackend = _import(".backends.dummy").DummyBackend
    # The backport's releases up to 0.12 call these two by longer names.
    InvalidTask = getattr(_exceptions, "InvalidTask", None) or _exceptions.InvalidTaskError
    InvalidTaskBackend = getattr(_exceptions, "InvalidTaskBackend", None) or _exceptions.InvalidTaskBackendError
    TaskResultDoesNotExist = _exceptions.TaskResultDoesNotExist
    TaskResultMismatch = _exceptions.TaskResultMismatch
    normalize_json = _json.normalize_json
    task_enqueued = _signals.task_enqueued
    task_started = _signals.task_started
    task_finished = _signals.task_finished


class LogReceiver(NamedTuple):
    """A receiver of the framework's own that only logs, and the level of its records; ``on_failure`` for a failed job."""

    receiver: Callable[..., None]
    level: int
    on_failure: int


_receivers = _import(".signals")
framework_logger: logging.Logger = _receivers.logger

# What the framework connects to its signals.
LOG_RECEIVERS: dict[Signal, LogReceiver] = {
    task_enqueued: LogReceiver(_receivers.log_task_enqueued, logging.DEBUG, logging.DEBUG),
    task_started: LogReceiver(_receivers.log_task_started, logging.INFO, logging.INFO),
    task_finished: LogReceiver(_receivers.log_task_finished, logging.INFO, logging.ERROR),
}

__all__ = [
    "LOG_RECEIVERS",
    "BaseDummyBackend",
    "BaseImmediateBackend",
    "BaseTaskBackend",
    "DjangoTask",
    "InvalidTask",
    "InvalidTaskBackend",
    "LogReceiver",
    "TaskContext",
    "TaskError",
    "TaskResult",
    "TaskResultDoesNotExist",
    "TaskResultMismatch",
    "TaskResultStatus",
    "framework_logger",
    "normalize_json",
    "register_framework_checks",
    "task_backends",
    "task_enqueued",
    "task_finished",
    "task_started",
]


def register_framework_checks() -> None:
    """Register the framework's own system check; Django does so only once its package is imported."""
    _import(".checks")
