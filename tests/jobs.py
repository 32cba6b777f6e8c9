"""The tasks of the process tests. Each tells the ledger what it does; see ``tests/process/ledger.py``."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.utils import timezone

from django_jobs import Snooze, current_job, task
from django_jobs.retries import fixed

from . import hostile_jobs  # noqa: F401 - they are found by the name of this module
from .process.ledger import gate_is_open, write

HOUR = timedelta(hours=1)
# A job that nobody lets go ends by itself, so that a test which failed leaves no worker busy for long.
_LONGEST_HOLD = 60.0


def note(event: str) -> None:
    """Write a line about the running job into the ledger."""
    job = current_job()
    assert job is not None
    write(event, job.job_id, job.attempt)


def _until(gate: str) -> Iterator[None]:
    until = time.monotonic() + _LONGEST_HOLD
    while not gate_is_open(gate) and time.monotonic() < until:
        yield


@task(max_attempts=5)
def touch() -> None:
    """Say that it ran."""
    note("ran")


@task
def write_nothing() -> None:
    """Take as little time as a job can."""


@task
def write_id(number: int) -> None:
    """Write its id into the table that the test has made."""
    job = current_job()
    assert job is not None
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO job_ids (job_id, pid) VALUES (%s, %s)", [job.job_id, os.getpid()])


@task
def hold(gate: str = "gate") -> None:
    """Run until the test opens the gate."""
    note("begin")
    for _ in _until(gate):
        time.sleep(0.005)
    note("end")


@task
async def hold_async(gate: str = "gate") -> None:
    note("begin")
    for _ in _until(gate):
        await asyncio.sleep(0.005)
    note("end")


@task
def hold_then_fail_first(gate: str = "gate") -> None:
    """Run until the test opens the gate; the first attempt fails then."""
    note("begin")
    for _ in _until(gate):
        time.sleep(0.005)
    job = current_job()
    assert job is not None
    if job.attempt == 1:
        raise ValueError("as the test wants it")
    note("end")


@task
def hold_stubbornly(gate: str = "gate") -> None:
    """Run until the test opens the gate, whatever the worker asks meanwhile."""
    has_begun = False
    while True:
        try:
            # All that takes time is in here: what the worker raises comes at any moment.
            if not has_begun:
                has_begun = True
                note("begin")
            for _ in _until(gate):
                time.sleep(0.005)
            break
        except BaseException:
            note("asked")
    note("end")


@task
def pause_briefly(seconds: float) -> None:
    note("begin")
    time.sleep(seconds)
    note("end")


@task(backoff=fixed(0.05), max_attempts=50)
def stumble(first: str, seconds: float) -> None:
    """Pause briefly; the first attempt ends as ``first`` says: "fail", "snooze" or "succeed"."""
    note("begin")
    try:
        time.sleep(seconds)
        job = current_job()
        if job is not None and job.attempt == 1 and first == "fail":
            raise ValueError("as the test wants it")
        if job is not None and job.attempt == 1 and first == "snooze":
            raise Snooze(0.05)
    finally:
        note("end")


@task
async def pause_briefly_async(seconds: float) -> None:
    note("begin")
    await asyncio.sleep(seconds)
    note("end")


@task
def hold_interpreter(seconds: int) -> None:
    """Keep the whole process from running Python, as a long call into C code does that keeps the GIL."""
    note("begin")
    ctypes.PyDLL(None).sleep(seconds)
    note("end")


@task
def kill_worker(how: str) -> None:
    """End the worker's process from inside."""
    note("begin")
    if how == "exit":
        os._exit(9)
    os.kill(os.getpid(), signal.SIGKILL)


@task
def leave_a_child(gate: str = "gate") -> None:
    """Fork, as libraries do, and leave a process behind that has all of the worker's open files."""
    note("begin")
    with warnings.catch_warnings():
        # Python warns of forks in processes with threads, and the tests run with warnings as errors.
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        for _ in _until(gate):
            time.sleep(0.01)
        os._exit(0)
    note("forked")


@task(backoff=fixed(0.3), max_attempts=3)
def fail() -> None:
    note("begin")
    raise ValueError("as the test wants it")


@task
def import_in_a_transaction(gate: str = "gate") -> None:
    """Show progress from inside a transaction that stays open until the test opens the gate."""
    job = current_job()
    assert job is not None
    with transaction.atomic():
        Group.objects.create(name="unseen")
        note("begin")
        job.progress(3, 10, "chunk 3")
        for _ in _until(gate):
            time.sleep(0.005)


@task
def import_in_steps(gate: str = "gate") -> None:
    """Show progress."""
    job = current_job()
    assert job is not None
    note("begin")
    job.progress(3, 10, "chunk 3")
    for _ in _until(gate):
        time.sleep(0.005)


@task
def query(gate: str = "gate") -> None:
    """Ask the database on and on until the test opens the gate."""
    Group.objects.count()
    note("begin")
    for _ in _until(gate):
        Group.objects.count()


@task
async def query_async(gate: str = "gate") -> None:
    note("begin")
    for _ in _until(gate):
        await Group.objects.acount()


@task(atomic=True, max_attempts=100)
def count_once() -> None:
    """Add one to the test's counter."""
    _add_one()


@task(atomic=True)
def count_once_and_kill_worker(when: str) -> None:
    """Add one to the test's counter; the first attempt kills its worker at this moment."""
    _add_one()
    job = current_job()
    assert job is not None
    if job.attempt > 1:
        return
    if when == "in the function":
        _kill()
    if when == "after the commit":
        transaction.on_commit(_kill)

    def kill_around_the_success(execute: Callable[..., Any], sql: Any, *more: Any) -> Any:
        is_success = str(sql).startswith("UPDATE") and "django_jobs_job" in str(sql)
        if is_success and when == "before the success":
            _kill()
        result = execute(sql, *more)
        if is_success and when == "before the commit":
            _kill()
        return result

    connection.execute_wrappers.append(kill_around_the_success)


def _add_one() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE counter SET value = value + 1")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task
def tell_time() -> float:
    """Return what the worker takes for the time, in seconds."""
    note("ran")
    return timezone.now().timestamp()


@task
def enqueue_for_later(seconds: float) -> int:
    """Enqueue a job that waits, and return its id."""
    note("ran")
    return int(touch.using(run_after=timedelta(seconds=seconds)).enqueue().id)
