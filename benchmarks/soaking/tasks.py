"""Every kind of job: well-behaved ones, and those that a worker has to live with.

``KINDS`` says how often each is enqueued and how it must have ended. A worker may be killed many times in the middle of
a job, so those that must succeed have attempts to spare.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import connection, transaction

from django_jobs import Cancel, Fail, Snooze, current_job, task
from django_jobs.retries import fixed
from django_jobs.states import JobState
from django_jobs.task import Task

from .ledger import note

SPARE = 60
# A queue of which so many jobs run at once, whatever number of workers, and a schedule of each second.
NARROW, MOST_NARROW = "narrow", 3
TICKS = "each second"
SOON = fixed(0.3)


def _attempt() -> int:
    job = current_job()
    assert job is not None
    return job.attempt


def _execute(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


@task(max_attempts=SPARE)
def quick() -> None:
    note("begin")
    note("end")


@task(max_attempts=SPARE)
def slow(seconds: float) -> None:
    note("begin")
    time.sleep(seconds)
    note("end")


@task(max_attempts=SPARE)
def tick() -> None:
    """What a schedule runs each second."""
    note("begin")
    note("end")


@task(max_attempts=SPARE)
async def slow_async(seconds: float) -> None:
    note("begin")
    await asyncio.sleep(seconds)
    note("end")


@task(max_attempts=SPARE, backoff=SOON)
def fail_first() -> None:
    note("begin")
    if _attempt() == 1:
        raise ValueError("the first attempt fails")
    note("end")


@task(max_attempts=2, backoff=SOON)
def fail_always() -> None:
    note("begin")
    raise ValueError("every attempt fails")


@task(max_attempts=SPARE)
def snooze_first() -> None:
    note("begin")
    if _attempt() == 1:
        raise Snooze(0.5)
    note("end")


@task(max_attempts=SPARE)
def give_up() -> None:
    note("begin")
    raise Cancel("the job has changed its mind")


@task(max_attempts=SPARE)
def give_up_for_good() -> None:
    note("begin")
    raise Fail("no other attempt would help")


@task(max_attempts=SPARE, atomic=True)
def count_once() -> None:
    """Leave a row: twice the same id would be an effect that happened twice."""
    note("begin")
    job = current_job()
    assert job is not None
    _execute("INSERT INTO effect (job_id) VALUES (%s)", job.job_id)
    _execute("UPDATE counter SET value = value + 1")
    note("end")


@task(max_attempts=2, backoff=SOON, atomic=True)
def count_and_fail() -> None:
    note("begin")
    _execute("UPDATE counter SET value = value + 1")
    raise ValueError("what this has counted must not count")


@task(max_attempts=SPARE, backoff=SOON, atomic=True)
def have_a_child() -> None:
    """Enqueue one job; the first attempt fails after that, and its child must never have been."""
    note("begin")
    job = current_job()
    assert job is not None
    child.enqueue(job.job_id)
    if job.attempt == 1:
        raise ValueError("the first attempt fails")
    note("end")


@task(max_attempts=SPARE)
def child(parent: int) -> None:
    note("begin")
    note("end")


@task(max_attempts=SPARE)
def return_much() -> str:
    note("begin")
    note("end")
    return "x" * 200_000


@task(max_attempts=SPARE)
def return_what_cannot_be_stored() -> object:
    note("begin")
    return threading.Lock()


@task(max_attempts=SPARE)
def leave_a_transaction_open() -> None:
    note("begin")
    transaction.set_autocommit(False)
    _execute("SELECT 1")
    note("end")


@task(max_attempts=SPARE)
def leave_a_lock_and_a_setting() -> None:
    note("begin")
    _execute("SELECT pg_try_advisory_lock(42)")
    _execute("SET statement_timeout = '1ms'")
    note("end")


@task(max_attempts=SPARE)
def hold_interpreter() -> None:
    """Keep the whole process from running Python for longer than its lease lasts."""
    import ctypes

    note("begin")
    ctypes.PyDLL(None).usleep(4_000_000)
    note("end")


@task(max_attempts=SPARE)
def kill_worker_first() -> None:
    note("begin")
    if _attempt() == 1:
        os._exit(9)
    note("end")


@task(max_attempts=2)
def kill_worker_always() -> None:
    note("begin")
    os._exit(9)


class Kind(NamedTuple):
    """``weight``: how often, compared with others; ``ends_as``: how every job of this kind must have ended."""

    task: Task
    weight: int
    ends_as: JobState
    # Of the chance of the soak: the arguments of a job, and what it has besides.
    arguments: Callable[[Any], tuple[Any, ...]] = lambda chance: ()
    options: Callable[[Any], dict[str, Any]] = lambda chance: {}


def _some_time(chance: Any) -> tuple[float]:
    return (round(chance.uniform(0.01, 0.5), 3),)


def _later(chance: Any) -> dict[str, Any]:
    return {"run_after": timedelta(seconds=chance.uniform(0.5, 5))}


def _of_a_key(chance: Any) -> dict[str, Any]:
    return {"concurrency_key": chance.choice("ab"), "concurrency_limit": 2}


KINDS = {
    "quick": Kind(quick, 300, JobState.SUCCEEDED),
    "scheduled": Kind(quick, 100, JobState.SUCCEEDED, options=_later),
    "slow": Kind(slow, 150, JobState.SUCCEEDED, _some_time),
    "keyed": Kind(slow, 80, JobState.SUCCEEDED, _some_time, _of_a_key),
    "narrow": Kind(slow, 80, JobState.SUCCEEDED, _some_time, lambda chance: {"queue_name": NARROW}),
    "async": Kind(slow_async, 100, JobState.SUCCEEDED, _some_time),
    "fails first": Kind(fail_first, 50, JobState.SUCCEEDED),
    "fails always": Kind(fail_always, 20, JobState.FAILED),
    "snoozes first": Kind(snooze_first, 30, JobState.SUCCEEDED),
    "gives up": Kind(give_up, 10, JobState.CANCELLED),
    "gives up for good": Kind(give_up_for_good, 10, JobState.FAILED),
    "atomic": Kind(count_once, 200, JobState.SUCCEEDED),
    "atomic, fails": Kind(count_and_fail, 20, JobState.FAILED),
    "atomic, has a child": Kind(have_a_child, 30, JobState.SUCCEEDED),
    "returns much": Kind(return_much, 10, JobState.SUCCEEDED),
    "returns the unstorable": Kind(return_what_cannot_be_stored, 5, JobState.FAILED),
    "leaves a transaction": Kind(leave_a_transaction_open, 10, JobState.SUCCEEDED),
    "leaves a lock": Kind(leave_a_lock_and_a_setting, 10, JobState.SUCCEEDED),
    "holds the interpreter": Kind(hold_interpreter, 1, JobState.SUCCEEDED),
    "kills its worker first": Kind(kill_worker_first, 2, JobState.SUCCEEDED),
    "kills its worker always": Kind(kill_worker_always, 1, JobState.FAILED),
}
