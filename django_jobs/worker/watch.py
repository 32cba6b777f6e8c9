"""Cutting connections on which a loop waits for an answer that will not come.

A connection may be dead without anybody saying so: a firewall forgot it, a server was moved, a pooler hangs. TCP notices
late or never, and a loop that waits on it stands still. So a thread looks at the loops that wait for the database, and
for one that waits long it asks the server, over a connection of its own, what that session does. One that is at work,
or waits for a lock, is left alone. Else the connection is cut: the pass fails, and the next one has a new connection.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from django.db import Error, connections

from ..models.database import jobs_connection, limit_waiting
from .options import WorkerOptions
from .service import Service

logger = logging.getLogger("django_jobs")

# A loop that has waited so many looks in one pass is asked about; no answer within as many is an answer too. Looks are
# counted, not seconds: while this process stands still itself, nobody is late.
_LOOKS = 5
# Behind a pooler a session cannot be asked about: it has another number there.
_LOOKS_UNKNOWN = 20
# The least time for the looks (seconds), for a machine that is busy.
_LEAST_PATIENCE = 0.5
# libpq's PGTransactionStatusType: a statement was sent, and its answer has not been read.
_ACTIVE = 1

_STATE = """
SELECT state = 'active' OR clock_timestamp() - state_change < make_interval(secs => %s)
FROM pg_stat_activity WHERE pid = %s
"""


class Watch(Service):
    name = "watch"

    def __init__(
        self,
        services: Sequence[Service],
        options: WorkerOptions,
        on_death: Callable[[Service], None] | None = None,
    ) -> None:
        super().__init__(on_death)
        # Until a loop is asked about; as long again, and a beat that was late can still be made up for.
        spare = options.heartbeat_timeout - options.heartbeat_interval
        self.patience = max(spare / 4, _LEAST_PATIENCE)
        self._stories = [_Story(service, self.patience) for service in services]

    def run_once(self) -> float:
        for story in self._stories:
            story.look()
        return self.patience / _LOOKS


class _Story:
    """What was seen of one loop in its present pass."""

    def __init__(self, service: Service, patience: float) -> None:
        self._service = service
        self._patience = patience
        self._begin_anew(0)

    def _begin_anew(self, number: int) -> None:
        self._number = number
        self._looks = 0
        self._question: _Question | None = None

    def look(self) -> None:
        number, session = self._service.pass_number, self._service.session()
        if number != self._number or not _waits(session):
            self._begin_anew(number)
            return
        self._looks += 1
        question = self._question
        if question is None:
            if self._looks >= _LOOKS:
                self._ask(session)
        elif question.is_at_work:
            self._begin_anew(number)
        elif self._looks >= (_LOOKS_UNKNOWN if question.is_unknown else 2 * _LOOKS):
            self._cut(session)

    def _ask(self, session: Any) -> None:
        self._question = _Question(session.info.backend_pid, self._patience)
        self._question.start()

    def _cut(self, session: Any) -> None:
        logger.error(
            "The %s loop has been waiting for an answer of the database that does not come; its connection is cut.",
            self._service.name,
        )
        if self._question is not None and (asking := self._question.session) is not None:
            _shut(asking)
        # Held before the last look at the pass: a number that is closed meanwhile may be another file's by then.
        with suppress(OSError, Error, *_driver_errors(session)):
            held = os.dup(session.fileno())
            with socket.socket(fileno=held) as line:
                if self._service.pass_number == self._number and self._service.session() is session:
                    line.shutdown(socket.SHUT_RDWR)
        self._begin_anew(self._number)


class _Question(threading.Thread):
    """Asks the server what a session does, in a thread and over a connection that may themselves wait for ever."""

    def __init__(self, pid: int, patience: float) -> None:
        super().__init__(name="django_jobs question", daemon=True)
        self._pid = pid
        self._patience = patience
        self.is_at_work = self.is_unknown = False
        self.session: Any = None

    def run(self) -> None:
        try:
            row = self._ask()
            self.is_at_work, self.is_unknown = bool(row and row[0]), row is None or row[0] is None
        except Error as error:
            # A server that has no connection to spare is no reason to cut another one. Of one that was refused the driver
            # keeps the text only.
            self.is_at_work = getattr(error.__cause__, "sqlstate", None) is not None or "FATAL" in str(error)
        finally:
            # Before it goes back to a pool, where it may be somebody else's at once.
            self.session = None
            connections.close_all()

    def _ask(self) -> tuple[bool | None] | None:
        """Return whether the session is at work; None for one that the server does not know."""
        connection = jobs_connection()
        limit_waiting(connection)
        connection.ensure_connection()
        self.session = connection.connection
        with connection.cursor() as cursor:
            cursor.execute(_STATE, [self._patience / 2, self._pid])
            row: tuple[bool | None] | None = cursor.fetchone()
        return row


def _waits(session: Any) -> bool:
    pgconn = getattr(session, "pgconn", None)
    return pgconn is not None and pgconn.transaction_status == _ACTIVE


def _shut(session: Any) -> None:
    with suppress(OSError, *_driver_errors(session)), socket.socket(fileno=os.dup(session.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def _driver_errors(session: Any) -> tuple[type[Exception], ...]:
    driver: Any = jobs_connection().Database  # type: ignore[attr-defined]
    return (driver.Error, AttributeError)
