"""The jobs that the bench runs. They are tasks only inside ``bench_tasks()``, and of a backend and queue of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ..compat import task_backends
from ..task import Task, task, withdraw

QUEUE = "django_jobs_bench"
_BACKEND = "django_jobs_bench"

# Seconds.
NAP = 0.01

# When each job began, by its number: the worker's threads are of this process.
begun: dict[int, float] = {}


def noop() -> None:
    """Do nothing."""


def stamp(number: int) -> None:
    """Note when the job began, in its first line."""
    begun[number] = time.perf_counter()


def nap() -> None:
    """Take 10 ms."""
    time.sleep(NAP)


class BenchTasks(NamedTuple):
    """The functions above as tasks."""

    noop: Task
    stamp: Task
    nap: Task


@contextmanager
def bench_tasks() -> Iterator[BenchTasks]:
    """Declare the tasks, and take the declarations back at the end.

    The project may have no backend of ours, or one that allows its own queues only: the bench brings one.
    """
    task_backends.settings[_BACKEND] = {"BACKEND": "django_jobs.backend.JobsBackend", "QUEUES": []}
    declare = task(queue_name=QUEUE, backend=_BACKEND)
    tasks = BenchTasks(declare(noop), declare(stamp), declare(nap))
    try:
        yield tasks
    finally:
        for each in tasks:
            withdraw(each)
        with suppress(AttributeError):
            del task_backends[_BACKEND]
        del task_backends.settings[_BACKEND]
        begun.clear()
