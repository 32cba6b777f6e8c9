"""Hints from the database that there is something to do: PostgreSQL's NOTIFY and LISTEN.

A hint is never the truth: workers poll all the same, and everything works where no hint arrives. All
hints travel on one channel; the payload says what happened:

- ``ready NAME``: jobs are ready in the queue NAME;
- ``due``: a scheduled job may be due earlier than the leader knows;
- ``cancel``: somebody wants a running job to stop;
- ``queues``: a queue was paused, resumed or changed;
- ``slots KEY``: slots of a concurrency key may be free, and who saw it could not give them away.

PostgreSQL lets the transactions that notify commit one after the other, so ``ready`` is not said for each job: such a
hint speaks for all that its process commits for the queue in the next ``WINDOW`` seconds, and a process sends the next
one no sooner. Therefore **a worker that has heard one looks again** ``LOOKS_AGAIN`` **seconds later**; the last look
comes after the window, with room for what was being committed at its end. Whether a hint is due is decided once its
transaction has committed, and only one that was sent opens a window: nothing relies on a hint that was rolled back or
failed. A single INSERT that is its own transaction takes its hint along.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from . import conf
from .models.database import GIVE_UP

CHANNEL = "django_jobs"
READY, DUE, CANCEL, QUEUES, SLOTS = "ready", "due", "cancel", "queues", "slots"

# For how many seconds a hint that jobs are ready speaks, and when those who heard it look again.
WINDOW = 0.02
LOOKS_AGAIN = (0.01, 0.03)
# A statement that begins in a window should also end in it: later than this it takes a hint along.
LAST_CALL = 0.75 * WINDOW

# When the last hint of each kind was about to be sent that then was. Without a lock, which a fork might find taken:
# two threads may both send, and a child rightly relies on what its parent has sent.
_sent: dict[_Hint, float] = {}
_MOST_REMEMBERED = 1000

# How many of a transaction's last callbacks are searched for the same hint: enough to send one hint for a loop
# of enqueues, few enough to cost nothing in a transaction with thousands of other callbacks.
_SEARCHED = 20


@dataclass(frozen=True)
class _Hint:
    """One payload; equal hints of one transaction are sent once."""

    alias: str
    payload: str

    def send(self) -> None:
        """Send it, unless another one speaks for it. Called when its transaction has committed."""
        if self.is_spoken_for(WINDOW):
            return
        began = time.monotonic()
        connection = connections[self.alias]
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, self.payload])
        # In a test's transaction, whose end will never come.
        if not connection.in_atomic_block:
            self.was_sent(began)

    def is_spoken_for(self, seconds: float) -> bool:
        """Say whether an equal hint was sent less than so many seconds ago."""
        sent_at = _sent.get(self)
        return sent_at is not None and time.monotonic() - sent_at < seconds

    def was_sent(self, began: float) -> None:
        """Let this hint speak for the window that began then, which was no later than it could be heard."""
        if not self.payload.startswith(f"{READY} "):
            return
        if len(_sent) >= _MOST_REMEMBERED:
            # Names of queues that are made up all the time.
            _sent.clear()
        _sent[self] = began


class Companion(NamedTuple):
    """A hint that a statement takes along, and the time before the statement."""

    hint: _Hint
    began: float

    @property
    def payload(self) -> str:
        return self.hint.payload

    def was_sent(self) -> None:
        self.hint.was_sent(self.began)


def can_notify(connection: BaseDatabaseWrapper) -> bool:
    """Say whether the database can send hints, and the project has not switched them off."""
    driver: Any = getattr(connection, "Database", None)
    return hasattr(getattr(driver, "Connection", None), "notifies") and bool(conf.read("NOTIFY"))


def hint(kind: str, name: str = "") -> None:
    """Send a hint once the current transaction has committed; at once outside of one.

    Once per transaction for equal hints, and at most one ``ready`` of a queue per window. A failure to send is logged
    and harms nothing.
    """
    connection = connections[conf.database()]
    own = _Hint(connection.alias, f"{kind} {name}".strip())
    if connection.autocommit and not connection.in_atomic_block and own.is_spoken_for(WINDOW):
        # Most jobs that are enqueued one by one come here: nothing is left to decide.
        return
    if not can_notify(connection):
        return
    if any(getattr(entry[1], "__self__", None) == own for entry in connection.run_on_commit[-_SEARCHED:]):
        return
    # A method has a name, which Django's report of a failure asks for.
    transaction.on_commit(own.send, using=connection.alias, robust=True)


def companion(connection: BaseDatabaseWrapper, kind: str, name: str = "") -> Companion | None:
    """Return the hint that the next statement should take along, as it will commit by itself; None if there is none.

    If the statement succeeded call its ``was_sent()``; in every other case ``hint()``.
    """
    if connection.in_atomic_block or not can_notify(connection) or not connection.get_autocommit():
        return None
    found = _Hint(connection.alias, f"{kind} {name}".strip())
    return None if found.is_spoken_for(LAST_CALL) else Companion(found, time.monotonic())


def is_refusal(error: DatabaseError) -> bool:
    """Say whether the server may have refused a statement for its companion: too many unheard, or no permission."""
    return getattr(error.__cause__, "sqlstate", None) in ("54000", "42501")


class Listener:
    """A connection of its own that hears hints; its owner waits on ``fileno()``.

    Never one of Django's connections: those may be pooled, closed between jobs or busy in a transaction.
    """

    def __init__(self) -> None:
        connection = connections[conf.database()]
        parameters = connection.get_connection_params()
        role = connection.settings_dict["OPTIONS"].get("assume_role")
        for name in ("cursor_factory", "context"):
            parameters.pop(name, None)
        self.is_asked = False
        self._connection: Any = connection.Database.connect(  # type: ignore[attr-defined]
            **(GIVE_UP | parameters), autocommit=True
        )
        try:
            if role:
                self._connection.execute("SELECT set_config('role', %s, false)", [role])
            self._connection.execute(f"LISTEN {CHANNEL}")
        except BaseException:
            self._connection.close()
            raise

    def fileno(self) -> int:
        """Return the socket to wait on. Raise the driver's error when the connection is gone."""
        number: int = self._connection.fileno()
        return number

    def heard(self) -> set[str]:
        """Return the payloads that have arrived, without waiting."""
        heard = {notification.payload for notification in self._connection.notifies(timeout=0)}
        line = self._connection.pgconn
        while self.is_asked and not line.is_busy():
            self.is_asked = line.get_result() is not None
        return heard

    def ask(self) -> None:
        """Ask the server for a sign of life, without waiting: until ``heard()`` takes the answer it ``is_asked``."""
        self._connection.pgconn.send_query(b"")
        self._connection.pgconn.flush()
        self.is_asked = True

    def close(self) -> None:
        self._connection.close()
