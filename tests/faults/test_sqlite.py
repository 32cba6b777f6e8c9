"""A database in a file: locked by somebody for longer than the timeout, and on a disk that is full."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django.db import connection

from django_jobs.models import Attempt, Job
from django_jobs.states import JobState
from tests import jobs
from tests.process.conftest import SQLITE, Start
from tests.process.ledger import Ledger
from tests.process.observe import PATIENCE, states_of, wait_until_finished, worker_of
from tests.processes import Command, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not settings.DATABASE_URL.startswith("sqlite"), reason="a server locks rows, and has its own disk"
    ),
]

# Bytes: more than a worker's log and the ledger, less than the write-ahead log that the test makes.
ROOM = 512 * 1024


def start_impatient(start: Start, project_env: dict[str, str]) -> Command:
    """Start a worker that waits for other writers for a moment only."""
    url = project_env["DATABASE_URL"].replace(f"timeout={SQLITE['timeout']}", "timeout=1")
    return start(env={"DATABASE_URL": url})


@contextmanager
def another_writer() -> Iterator[None]:
    """Hold the write lock of the database."""
    with closing(sqlite3.connect(str(connection.settings_dict["NAME"]), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_a_database_that_is_locked_for_long_costs_no_job_and_no_attempt(
    start: Start, ledger: Ledger, project_env: dict[str, str]
) -> None:
    command = start_impatient(start, project_env)
    worker = worker_of(command)
    held = jobs.hold.enqueue_many([((), {})] * 2)
    wait_until(lambda: ledger.count("begin") == 2)
    waiting = jobs.touch.enqueue_many([((), {})] * 3)

    with another_writer():
        ledger.open_gate()
        wait_until(lambda: ledger.count("end") == 2)
        for loop in ("exchange", "heartbeat", "leader"):
            wait_until(lambda loop=loop: f"The {loop} loop failed" in command.output(), timeout=PATIENCE, message=loop)
        meanwhile = states_of([*held, *waiting])

    wait_until_finished([*held, *waiting])
    assert meanwhile == {JobState.RUNNING, JobState.READY}
    assert states_of([*held, *waiting]) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert not Attempt.objects.exists()
    assert worker_of(command) == worker


@contextmanager
def full_disk(*pids: int) -> Iterator[None]:
    """Let these processes write nothing beyond the first bytes of any file, as on a disk that has no more room."""
    # Read all the while, so that the write-ahead log goes on where it is and does not begin anew.
    with closing(sqlite3.connect(str(connection.settings_dict["NAME"]), isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM django_jobs_job").fetchone()
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE filler (bytes blob)")
            cursor.execute("INSERT INTO filler VALUES (zeroblob(1000000))")
        assert Path(f"{connection.settings_dict['NAME']}-wal").stat().st_size > ROOM
        for pid in pids:
            psutil.Process(pid).rlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
        yield
        for pid in pids:
            psutil.Process(pid).rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE filler")


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="another process's limits cannot be set here")
def test_a_full_disk_costs_no_job_and_no_attempt(start: Start, ledger: Ledger) -> None:
    command = start()
    worker = worker_of(command)
    held = jobs.hold.enqueue_many([((), {})] * 2)
    wait_until(lambda: ledger.count("begin") == 2)
    waiting = jobs.touch.enqueue_many([((), {})] * 3)

    with full_disk(worker.pid, command.pid):
        ledger.open_gate()
        wait_until(lambda: ledger.count("end") == 2)
        for loop in ("exchange", "heartbeat", "leader"):
            wait_until(lambda loop=loop: f"The {loop} loop failed" in command.output(), timeout=PATIENCE, message=loop)
        meanwhile = states_of([*held, *waiting])

    wait_until_finished([*held, *waiting])
    assert meanwhile == {JobState.RUNNING, JobState.READY}
    assert states_of([*held, *waiting]) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert not Attempt.objects.exists()
    assert set(Job.objects.values_list("attempt", flat=True)) == {1}
    assert worker_of(command) == worker
