"""What the exchange thread waits on: a pipe of its own and the listener's socket, in one ``poll``."""

from __future__ import annotations

import logging
import math
import os
import select
import time
from contextlib import suppress

from django.db import Error

from ..models.compiled import has_pooler
from ..models.database import jobs_connection
from ..notifications import LOOKS_AGAIN, Listener, can_notify

logger = logging.getLogger("django_jobs")

# A listener that cannot be had is asked for again after this long; polling finds the jobs meanwhile.
_RELISTEN_AFTER = 5.0
# The least time (seconds) that a listener's server gets for a sign of life.
_LEAST_PATIENCE = 1.0


class Wakeup:
    """Waits for a wake-up from another thread, a hint from the database, or the clock."""

    def __init__(self, listens: bool, ask_every: float = 10.0) -> None:
        """Listen for hints if ``listens``, and ask the listener's server for a sign of life every so many seconds."""
        # Made when first needed: what was never waited on has nothing to give back.
        self._read = self._write = -1
        self._listens = listens
        self._listener: Listener | None = None
        self._relisten_at = self._ask_at = 0.0
        self._ask_every = max(ask_every, _LEAST_PATIENCE)
        self._logged = ""
        self._is_waiting = False
        self._is_woken = False
        # When waits end though nothing has happened.
        self._looks: list[float] = []

    def wake(self) -> None:
        """End the wait, or the next one. Any thread may call this; cheap while nobody waits."""
        self._is_woken = True
        if self._is_waiting:
            with suppress(BlockingIOError, OSError):
                os.write(self._write, b"!")

    def look_again(self) -> None:
        """End a wait also when the jobs may be there that the last hint speaks for; see ``notifications``."""
        self._looks = [time.monotonic() + after for after in LOOKS_AGAIN]

    def wait(self, seconds: float) -> set[str]:
        """Wait for any of the three; return the hints that have been heard."""
        self._open()
        self._listen()
        self._is_waiting = True
        try:
            # Looked at after the flag is up: a wake-up in between writes to the pipe.
            seconds = 0 if self._is_woken else max(self._until_look(seconds), 0)
            readable = self._readable_within(seconds)
            if self._read in readable:
                with suppress(BlockingIOError):
                    os.read(self._read, 4096)
            heard = self._heard(readable)
            self._check_listener()
            return heard
        except _listener_errors() as error:
            self._drop(error)
            return set()
        finally:
            self._is_waiting = self._is_woken = False

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for number in (self._read, self._write):
            if number >= 0:
                os.close(number)
        self._read = self._write = -1

    def _open(self) -> None:
        if self._read < 0:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)

    def _until_look(self, seconds: float) -> float:
        now = time.monotonic()
        self._looks = [at for at in self._looks if at > now]
        return min([seconds, *(at - now for at in self._looks)])

    def _readable_within(self, seconds: float) -> list[int]:
        # Not select(), which takes no number above 1023, and a job may have many files open.
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if self._listener is not None:
            poll.register(self._listener.fileno(), select.POLLIN)
        return [number for number, _ in poll.poll(math.ceil(seconds * 1000))]

    def _heard(self, readable: list[int]) -> set[str]:
        if self._listener is None or self._listener.fileno() not in readable:
            return set()
        return self._listener.heard()

    def _check_listener(self) -> None:
        """Ask for a sign of life from time to time; give up a listener that has not answered since the last time."""
        now = time.monotonic()
        if self._listener is None or now < self._ask_at:
            return
        # Whatever had arrived has just been read.
        if self._listener.is_asked:
            raise TimeoutError(f"its connection has been silent for {self._ask_every:.1f} s")
        self._listener.ask()
        self._ask_at = now + self._ask_every

    def _listen(self) -> None:
        if not self._listens:
            return
        connection = jobs_connection()
        if has_pooler(connection):
            self._listens = False
            self._drop(
                "a pooler gives each transaction another session. Let the setting DISABLE_SERVER_SIDE_CURSORS of the "
                "database say so with True, or False if it keeps sessions"
            )
        elif self._listener is None and time.monotonic() >= self._relisten_at:
            self._listens = can_notify(connection)
            if self._listens:
                self._make_listener()

    def _make_listener(self) -> None:
        try:
            self._listener = Listener()
        except _listener_errors() as error:
            self._drop(error)
            return
        self._logged = ""
        self._ask_at = time.monotonic() + self._ask_every
        # What was announced before we listened is found by polling once more.
        self._is_woken = True

    def _drop(self, reason: object) -> None:
        # Not each time that it is tried in vain.
        if str(reason) != self._logged:
            self._logged = str(reason)
            logger.warning("No notifications for now, polling goes on: %s", reason)
        if self._listener is not None:
            with suppress(*_listener_errors()):
                self._listener.close()
        self._listener = None
        self._relisten_at = time.monotonic() + _RELISTEN_AFTER


def _listener_errors() -> tuple[type[Exception], ...]:
    """Return what a broken listener raises: the driver's errors, which Django does not wrap here."""
    driver = jobs_connection().Database  # type: ignore[attr-defined]
    return (Error, driver.Error, OSError)
