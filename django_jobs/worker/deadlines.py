"""Watching the clock for running jobs that have a timeout. Asks nothing of the database, so it works while that is away.

What an interrupt does is the executor's: in a thread ``JobTimeout`` is raised where Python code runs next, so that code
in C (a query, a long computation) goes on until it returns; a coroutine is cancelled where it waits. A job that does
not end then keeps its place; it is not killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from .service import Service

# The longest wait (seconds): some are longer than the system's clocks can wait for.
_LONGEST_WAIT = 60.0


class Expiring(Protocol):
    def expire(self) -> None:
        """Take note that the time is over."""


class Deadlines(Service):
    name = "deadlines"

    def __init__(self, on_death: Callable[[Service], None] | None = None) -> None:
        super().__init__(on_death)
        # As many as jobs run here. Each change, and the copy that a pass makes, is one step of the interpreter.
        self._deadlines: dict[Expiring, float] = {}
        # When the next pass is due.
        self._next = math.inf

    def watch(self, window: Expiring, deadline: float) -> None:
        """Call ``window.expire()`` when the monotonic clock has reached the deadline. Any thread may call this."""
        self._deadlines[window] = deadline
        if deadline < self._next:
            self.wake()

    def forget(self, window: Expiring) -> None:
        """Watch no more for this one: it has ended."""
        self._deadlines.pop(window, None)

    def run_once(self) -> float:
        # Whoever comes while the next deadline is looked for wakes this thread once more.
        self._next = math.inf
        for window, deadline in self._deadlines.copy().items():
            if time.monotonic() >= deadline:
                self.forget(window)
                window.expire()
        now = time.monotonic()
        self._next = min([*self._deadlines.copy().values(), now + _LONGEST_WAIT])
        return max(0.0, self._next - now)
