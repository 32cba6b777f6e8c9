"""A second session on the database, to force the order in which two of them meet."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest
from django.db import connection, connections

from django_jobs.models.database import exclusive

T = TypeVar("T")
TIMEOUT = 30.0


class Rival:
    """Runs one call after the other in a thread of its own, with database connections of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._transaction: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._transaction is not None:
            self.commit()
        self.run(connections.close_all)
        self._thread.shutdown()

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call the function in the other session and return its answer."""
        return self.start(function, *args).result(TIMEOUT)

    def start(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Begin the call in the other session; it may have to wait for this one."""
        return self._thread.submit(function, *args)

    def begin(self) -> None:
        """Open a transaction in the other session, which stays open until commit()."""
        self._transaction = exclusive()
        self.run(self._transaction.__enter__)

    def commit(self) -> None:
        ended, self._transaction = self._transaction, None
        self.run(ended.__exit__, None, None, None)


def wait_until_blocked() -> None:
    """Return once some session waits for a lock of another; at once where the database does not tell."""
    if not connection.features.has_select_for_update:
        return
    deadline = time.monotonic() + TIMEOUT
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute(waiting)
            if cursor.fetchone():
                return
    pytest.fail("No session came to wait for a lock.")


def let_pass(call: Future[Any]) -> None:
    """Wait for the end of a call that passes over locked rows; where rows cannot be locked it waits for the others."""
    if connection.features.has_select_for_update_skip_locked:
        call.result(TIMEOUT)
