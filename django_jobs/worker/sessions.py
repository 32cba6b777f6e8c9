"""Clean Django state around every job of a thread: connections, translation, time zone.

Threads keep their connections between jobs, also where ``CONN_MAX_AGE`` is 0, which is meant for requests; a
connection that has been idle is checked before it is used again. One that a job left broken, inside a transaction or with
a changed session is closed, so that the next job gets a fresh one. With Django's own pool it goes back to the pool
after each job.

A change of the session is noticed when it is made through Django's cursors; one made past them on the driver's own
connection is noticed only while a transaction is open.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone, translation

# A connection that was idle this long (seconds) may have been cut by a firewall or a restart of the server.
CHECK_AFTER_IDLE = 5.0

# Statements whose effect outlives their transaction: first in the text, or after another statement or a comment.
# One too many costs a connection, one too few spoils the next job.
_CHANGES = re.compile(
    r"(?:^|;|\*/|--[^\n]*\n)\s*(?:set\s+(?!local\b|transaction\b|constraints\b)|reset\b|listen\b|prepare\b|load\b"
    r"|pragma\b|attach\b|create\s+(?:or\s+replace\s+)?(?:local\s+|global\s+)?temp)"
)
# Most statements have none of these, and are not searched further: it would cost as much as the rest of a small query.
_WORDS = ("set", "listen", "prepare", "load", "pragma", "attach", "temp")
_FUNCTIONS = ("set_config", "pg_advisory_lock", "pg_try_advisory_lock")
# Of longer statements, inserts of many rows, only so many characters are searched.
_SEARCHED = 4000


class Sessions:
    """The connections of one thread. Made and used in that thread only."""

    def __init__(self) -> None:
        self._idle_since = time.monotonic()
        self._changed: set[str] = set()
        self._watched: Sequence[BaseDatabaseWrapper] = ()

    @contextmanager
    def clean(self) -> Iterator[None]:
        """Run one job inside: clean state before it, and what it left behind put right after it."""
        self.prepare()
        translation.deactivate()
        timezone.deactivate()
        try:
            yield
        finally:
            self.put_right()
            translation.deactivate()
            timezone.deactivate()

    @property
    def are_idle(self) -> bool:
        """Say whether the connections have been idle so long that ``prepare()`` checks them."""
        return time.monotonic() - self._idle_since >= CHECK_AFTER_IDLE

    def prepare(self) -> None:
        """Make the thread's connections ready for a job."""
        if self.are_idle:
            self._check()
        if not self._watched:
            self._watch_all()

    def _watch_all(self) -> None:
        self._watched = connections.all()
        for connection in self._watched:
            if self._watch not in connection.execute_wrappers:
                connection.execute_wrappers.append(self._watch)

    def _watch(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if changes_session(_text_of(sql)):
            self._changed.add(context["connection"].alias)
        return execute(sql, params, many, context)

    def _check(self) -> None:
        for connection in connections.all(initialized_only=True):
            if connection.connection is not None and not connection.is_usable():
                discard(connection)
        self._idle_since = time.monotonic()

    def close(self) -> None:
        """Close the thread's connections, and watch them no more."""
        for connection in connections.all(initialized_only=True):
            if self._watch in connection.execute_wrappers:
                connection.execute_wrappers.remove(self._watch)
        connections.close_all()

    def put_right(self) -> None:
        """Close the connections that a job has left broken or changed; others stay open for the next."""
        self._idle_since = time.monotonic()
        here = connections.all()
        is_watched = here == self._watched
        for connection in here:
            # With DEBUG every query is kept here, for a request that never comes.
            connection.queries_log.clear()
            # What a job has done on a connection of its own making, nobody has watched.
            is_known = is_watched or connection in self._watched
            if not is_known or connection.alias in self._changed or is_spoiled(connection):
                discard(connection)
                is_watched = False
            elif connection.connection is not None and (is_pooled(connection) or is_too_old(connection)):
                connection.close()
        self._changed.clear()
        if not is_watched:
            self._watch_all()


def changes_session(statement: str) -> bool:
    """Say whether the effect of a statement may outlive its transaction."""
    text = statement[:_SEARCHED].lower()
    if any(function in text for function in _FUNCTIONS):
        return True
    return any(word in text for word in _WORDS) and _CHANGES.search(text) is not None


def _text_of(sql: Any) -> str:
    """Return a statement as text; psycopg also takes bytes and SQL composed of parts."""
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    return str(sql.as_string(None) if hasattr(sql, "as_string") else sql)


def is_spoiled(connection: BaseDatabaseWrapper) -> bool:
    """Say whether a job has left the connection in a transaction, without autocommit, or broken."""
    if connection.in_atomic_block or connection.needs_rollback:
        return True
    if connection.connection is None:
        return False
    try:
        if connection.autocommit != connection.settings_dict["AUTOCOMMIT"] or is_in_transaction(connection):
            return True
    except _driver_error(connection):
        # The job has closed the driver's own connection.
        return True
    if connection.errors_occurred and not connection.is_usable():
        return True
    connection.errors_occurred = False
    return False


def is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Say whether the driver's connection is inside a transaction, also one begun past Django."""
    raw: Any = connection.connection
    if (session := getattr(raw, "pgconn", None)) is not None:
        # 0 is IDLE in libpq's PGTransactionStatusType.
        return bool(session.transaction_status != 0)
    return bool(getattr(raw, "in_transaction", False))


def is_pooled(connection: BaseDatabaseWrapper) -> bool:
    """Say whether the connection comes from Django's own pool, to which it goes back after each job."""
    return bool(connection.settings_dict.get("OPTIONS", {}).get("pool"))


def is_too_old(connection: BaseDatabaseWrapper) -> bool:
    """Say whether the connection has passed a CONN_MAX_AGE that the project has set (0 does not count)."""
    return bool(connection.settings_dict["CONN_MAX_AGE"]) and time.monotonic() >= (connection.close_at or float("inf"))


def discard(connection: BaseDatabaseWrapper) -> None:
    """Close the connection whatever its state; this thread gets a fresh one when it next asks."""
    raw: Any = connection.connection
    with suppress(_driver_error(connection)):
        if hasattr(raw, "in_transaction"):
            # A closed session of SQLite lives on, with its lock, while the traceback of an error holds a cursor.
            raw.rollback()
        elif raw is not None and is_pooled(connection):
            # A pool would hand the session out again, with the settings that the job has changed.
            raw.close()
    # Django refuses to forget a connection that is closed inside a transaction.
    connection.in_atomic_block = False
    if _must_be_kept(connection):
        connection.needs_rollback = connection.closed_in_transaction = False
        connection.savepoint_ids, connection.atomic_blocks = [], []
        connection.set_autocommit(connection.settings_dict["AUTOCOMMIT"])
        return
    try:
        connection.close()
    finally:
        del connections[connection.alias]


def _driver_error(connection: BaseDatabaseWrapper) -> type[Exception]:
    error: type[Exception] = connection.Database.Error  # type: ignore[attr-defined]
    return error


def _must_be_kept(connection: BaseDatabaseWrapper) -> bool:
    """Say whether closing loses the data: a SQLite database in memory lives as long as its connection."""
    is_in_memory = getattr(connection, "is_in_memory_db", None)
    return bool(is_in_memory and is_in_memory())
