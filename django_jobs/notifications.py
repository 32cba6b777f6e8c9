"""Hints from the database that there is something to do: PostgreSQL's NOTIFY and LISTEN.

A hint is never the truth: workers poll all the same, and everything works where no hint arrives. All
hints travel on one channel; the payload says what happened:

- ``ready NAME``: jobs are ready in the queue NAME;
- ``due``: a scheduled job may be due earlier than the leader knows;
- ``cancel``: somebody wants a running job to stop;
- ``queues``: a queue was paused, resumed or changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from . import conf

CHANNEL = "django_jobs"
READY, DUE, CANCEL, QUEUES = "ready", "due", "cancel", "queues"

# How many of a transaction's last callbacks are searched for the same hint: enough to send one hint for a loop
# of enqueues, few enough to cost nothing in a transaction with thousands of other callbacks.
_SEARCHED = 20


@dataclass(frozen=True)
class _Hint:
    """The callback that sends one payload; equal hints of one transaction are sent once."""

    alias: str
    payload: str

    def __call__(self) -> None:
        with connections[self.alias].cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, self.payload])


def can_notify(connection: BaseDatabaseWrapper) -> bool:
    """Say whether the database can send hints, and the project has not switched them off."""
    driver: Any = getattr(connection, "Database", None)
    return hasattr(getattr(driver, "Connection", None), "notifies") and bool(conf.read("NOTIFY"))


def hint(kind: str, name: str = "") -> None:
    """Send a hint once the current transaction has committed; at once outside of one.

    Once per transaction for equal hints. A failure to send is logged and harms nothing.
    """
    connection = connections[conf.database()]
    if not can_notify(connection):
        return
    callback = _Hint(connection.alias, f"{kind} {name}".strip())
    if any(entry[1] == callback for entry in connection.run_on_commit[-_SEARCHED:]):
        return
    transaction.on_commit(callback, using=connection.alias, robust=True)


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
        self._connection: Any = connection.Database.connect(**parameters, autocommit=True)  # type: ignore[attr-defined]
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
        return {notification.payload for notification in self._connection.notifies(timeout=0)}

    def close(self) -> None:
        self._connection.close()
