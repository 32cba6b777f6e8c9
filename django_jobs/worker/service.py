"""The one contract of every loop: ``run_once()``, then wait until woken or until its time has come.

A pass that raises is logged, and the loop lives: it tries again after a growing pause. A thread that ends all the same
is reported to ``on_death``: a process that is alive but does not work is worse than one that ends.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..models.database import jobs_connection, limit_waiting
from .failures import clean_text

logger = logging.getLogger("django_jobs")

# The pause after the first failed pass, and the longest: short enough that leases are renewed at once when a
# database comes back.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0

# How much of a loop's last error is shown (characters), and how soon the same one is logged again (seconds).
_LONGEST_ERROR = 1000
_LOG_AGAIN_AFTER = 60.0


class Service:
    """A loop. Subclasses write ``run_once``; tests call it; ``start`` runs it in a thread of its own."""

    name = "service"

    def __init__(self, on_death: Callable[[Service], None] | None = None) -> None:
        self._on_death = on_death
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0
        # Odd while a pass is being made.
        self.pass_number = 0
        self._connection: BaseDatabaseWrapper | None = None
        self._last_pass = time.monotonic()
        self._last_error = ""
        # Errors of the last minute, and when they were logged.
        self._logged: dict[str, float] = {}
        self._is_failure_told = False

    def run_once(self) -> float:
        """Do one pass; return after how many seconds, at the latest, the next should begin."""
        raise NotImplementedError  # pragma: no cover

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"django_jobs {self.name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Begin the next pass at once. Any thread may call this."""
        self._woken.set()

    def stop(self, timeout: float | None = None) -> bool:
        """End the loop after its current pass. False: it has not ended within ``timeout`` seconds."""
        self._stopping.set()
        self.wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self.is_alive

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def has_failed(self) -> bool:
        """Say whether the last pass raised."""
        return self._failures > 0

    def health(self) -> dict[str, Any]:
        """Return whether the loop lives, the seconds since its last pass, and its last error ('' for none)."""
        age = round(time.monotonic() - self._last_pass, 3)
        return {"alive": self.is_alive, "seconds_since_pass": age, "last_error": self._last_error}

    def session(self) -> Any:
        """Return the driver's connection to the jobs database of the loop's thread, None without. For ``Watch``."""
        return None if self._connection is None else self._connection.connection

    def attempt(self) -> float:
        """Do one pass; never raise for an error: log it and return how long to pause."""
        self.pass_number += 1
        try:
            pause = self.run_once()
            self._note_success()
        except Exception as error:  # noqa: BLE001 - it is logged, and the loop lives
            self._failures += 1
            self._last_error = clean_text(f"{type(error).__name__}: {error}"[:_LONGEST_ERROR])
            self._log_failure()
            self.recover()
            longest = min(_FIRST_PAUSE * 2 ** min(self._failures, 10), _LONGEST_PAUSE)
            pause = longest * random.uniform(0.5, 1)
        self._last_pass = time.monotonic()
        self.pass_number += 1
        return pause

    def _note_success(self) -> None:
        if self._failures > 1 and self._is_failure_told:
            logger.warning("The %s loop works again, after %d failures.", self.name, self._failures)
            self._is_failure_told = False
        self._failures = 0
        self._last_error = ""

    def _log_failure(self) -> None:
        """Log an error, and the same one again a minute later: a database may be away for hours."""
        now = time.monotonic()
        self._logged = {error: at for error, at in self._logged.items() if now < at + _LOG_AGAIN_AFTER}
        if self._last_error in self._logged:
            return
        self._logged[self._last_error] = now
        self._is_failure_told = True
        logger.error("The %s loop failed and goes on: %s", self.name, self._last_error, exc_info=self._failures == 1)

    def recover(self) -> None:
        """Bring the loop into a state to go on from after an error."""
        connections.close_all()

    def wait(self, seconds: float) -> None:
        """Wait until woken or until so many seconds have passed."""
        self._woken.wait(seconds)
        self._woken.clear()

    def close(self) -> None:
        """Give back what the loop's thread held."""
        connections.close_all()

    def _leave(self) -> None:
        try:
            self.close()
        except Error as error:
            logger.error("The %s loop ends without its last writes: %s", self.name, error)
            connections.close_all()

    def _run(self) -> None:
        self._connection = jobs_connection()
        limit_waiting(self._connection)
        try:
            while not self._stopping.is_set():
                pause = self.attempt()
                if not self._stopping.is_set():
                    self.wait(pause)
            self._leave()
        finally:
            if not self._stopping.is_set() and self._on_death is not None:
                self._on_death(self)


def within(seconds: float, write: Callable[[], None]) -> None:
    """Make last writes in a thread that is left behind if they take longer: a process that ends waits for no dead server."""

    def write_and_close() -> None:
        try:
            limit_waiting(jobs_connection())
            write()
        finally:
            connections.close_all()

    thread = threading.Thread(target=write_and_close, name="django_jobs last writes", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        logger.error("The last writes are not done after %.0f s: the database does not answer.", seconds)
