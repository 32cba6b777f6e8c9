"""Processes that are made to stand still, and to go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
from django.db import DatabaseError, connection

from django_jobs.models.database import exclusive
from tests.processes import Command, wait_until


def freeze_all(command: Command) -> None:
    """Stop the supervisor and its workers where they stand."""
    freeze(*_processes(command))


def thaw_all(command: Command) -> None:
    thaw(*_processes(command))


def freeze(*pids: int) -> None:
    """Stop processes where they stand, outside of any transaction.

    Inside one they would hold its locks, and with SQLite the whole database, for as long as they stand still.
    """
    while True:
        _send(signal.SIGSTOP, pids)
        wait_until(lambda: all(map(_stands_still, pids)), message="the processes to stand still")
        if not _is_transaction_open():
            return
        _send(signal.SIGCONT, pids)


def thaw(*pids: int) -> None:
    _send(signal.SIGCONT, pids)


def _send(number: int, pids: tuple[int, ...]) -> None:
    for pid in pids:
        os.kill(pid, number)


def _processes(command: Command) -> list[int]:
    return [command.pid, *(child.pid for child in psutil.Process(command.pid).children())]


def _stands_still(pid: int) -> bool:
    """Say whether every thread has stopped: one that is inside a call to the system first comes to its end."""
    if not Path("/proc/self/task").exists():
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in stats} == {"T"}


def _is_transaction_open() -> bool:
    """Say whether somebody else has a transaction open, by asking the server or by trying to have the one of SQLite."""
    if connection.features.has_select_for_update:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND backend_type = 'client backend' AND state <> 'idle'"
            )
            return cursor.fetchone() is not None
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 0")
    try:
        with exclusive():
            return False
    except DatabaseError:
        return True
    finally:
        connection.close()
