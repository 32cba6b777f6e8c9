"""When a worker's row is written anew: in every interval, and soon after what it counts has changed."""

from __future__ import annotations

import time

# How soon new counters are written (seconds).
NEWS_INTERVAL = 2.0

Counts = tuple[int, int]


class News:
    """Used by the exchange thread only, but for ``soon()``."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._due_at = self._told_at = 0.0
        self._told: Counts = (0, 0)

    def soon(self) -> None:
        """Let the row be written with the next look. Any thread may call this."""
        self._due_at = 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._due_at

    def is_to_tell(self, counts: Counts) -> bool:
        """Say whether the row is to be written now; if so it is taken for written."""
        now = time.monotonic()
        if not self.is_due and (counts == self._told or now < self._told_at + NEWS_INTERVAL):
            return False
        self._due_at, self._told_at, self._told = now + self._interval, now, counts
        return True
