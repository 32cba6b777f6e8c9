"""Tasks that harm their worker, their process or their session, for the tests of faults. ``jobs`` imports this."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from django.db import connection, transaction

from django_jobs import current_job, task
from django_jobs.retries import fixed

from .process.ledger import VARIABLE, Ledger, gate_is_open, write

# The project's code as it was before the last deploy, where this is in the environment.
OLD_CODE = "JOBS_TEST_OLD_CODE"

_LONGEST_HOLD = 60.0


def note(event: str) -> None:
    """Write a line about the running job into the ledger."""
    job = current_job()
    assert job is not None
    write(event, job.job_id, job.attempt)


def _is_first_attempt() -> bool:
    job = current_job()
    assert job is not None
    return job.attempt == 1


# Ends of a process


@task
def segfault() -> None:
    note("begin")
    ctypes.string_at(0)


@task
def be_killed_beside_others(patience: float = 1.0) -> None:
    """Kill the worker from inside, as the kernel does for memory; wait a moment for others to run beside."""
    note("begin")
    until = time.monotonic() + patience
    while not _others_have_begun() and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def _others_have_begun() -> bool:
    job = current_job()
    assert job is not None
    begun = Ledger(Path(os.environ[VARIABLE])).entries("begin")
    return any(entry.pid == os.getpid() and entry.job_id != job.job_id for entry in begun)


class Death(BaseException):
    """Ends a thread wherever it is raised."""


@task
def kill_a_thread(name: str) -> None:
    """Let another thread of the worker die, whose name begins so; the second attempt does nothing."""
    note("begin")
    if not _is_first_attempt():
        return
    here = threading.get_ident()
    victim = next(thread for thread in threading.enumerate() if thread.name.startswith(name) and thread.ident != here)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(victim.ident or 0), ctypes.py_object(Death))
    note("killed")
    until = time.monotonic() + _LONGEST_HOLD
    while time.monotonic() < until:
        time.sleep(0.01)


# Memory and values


@task(max_attempts=1)
def ask_for_too_much_memory() -> None:
    bytearray(2**62)


@task(max_attempts=1)
def return_megabytes(count: int) -> str:
    return "x" * (count * 1024 * 1024)


@task(max_attempts=1)
def raise_what_nobody_can_read_or_pickle() -> None:
    class Unreadable(Exception):
        """Its class is found by no path, it holds a lock, and its text cannot be had."""

        def __init__(self) -> None:
            super().__init__(threading.Lock())

        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

        def __reduce__(self) -> Any:
            raise RuntimeError("no pickle")

    raise Unreadable


# Code that does not return to Python


@task
def sleep_in_c(seconds: int) -> None:
    """Call C code that gives the GIL up and cannot be interrupted."""
    note("begin")
    libc = ctypes.CDLL(None)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        # A signal ends the sleep early.
        libc.sleep(seconds)
    note("end")


@task(max_attempts=1)
def hold_interpreter_once(seconds: int) -> None:
    """Call C code that keeps the GIL."""
    note("begin")
    ctypes.PyDLL(None).sleep(seconds)
    note("end")


# What a job leaves behind


@task
def leave_a_thread(gate: str = "gate") -> None:
    """Leave a thread behind for which Python waits at the end of a process."""

    def live_on() -> None:
        until = time.monotonic() + _LONGEST_HOLD
        while not gate_is_open(gate) and time.monotonic() < until:
            time.sleep(0.01)

    threading.Thread(target=live_on, name="left behind", daemon=False).start()
    note("ran")


@task
def leave_in_the_session(what: str) -> None:
    """Leave a transaction, a setting or a lock behind."""
    if what == "transaction":
        transaction.atomic().__enter__()
        connection.cursor().execute("INSERT INTO auth_group (name) VALUES ('never committed')")
    else:
        with connection.cursor() as cursor:
            cursor.execute(what)
            cursor.fetchall() if cursor.description else None
    note("ran")


@task
def look_at_the_session(query: str) -> list[Any]:
    """Return whether the session is in a transaction, what a query finds in it, and the process."""
    in_transaction: bool = connection.in_atomic_block
    with connection.cursor() as cursor:
        cursor.execute(query)
        return [in_transaction, cursor.fetchone()[0], os.getpid()]


# Deploys


if OLD_CODE in os.environ:

    @task
    def greet(name: str) -> str:
        """Greet, as before the deploy."""
        note("ran")
        return f"Hello {name}"

else:

    @task
    def greet(name: str, language: str) -> str:
        note("ran")
        return f"{language}: {name}"

    @task(backoff=fixed(0.1))
    def new_with_the_deploy(number: int) -> int:
        note("ran")
        return number + 1
