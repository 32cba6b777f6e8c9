"""What jobs tell while they run: datagrams from ``peers/bodies.py`` to a socket of this process.

Nothing is written to the database for it, so that every peer pays the same: next to nothing.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# A worker reports this many times in a run, besides its first job.
STEPS = 50
BUFFER_BYTES = 4 << 20


class Reports:
    """The receiving end. Times are seconds since the epoch, on the clock that the jobs' processes share."""

    def __init__(self, receiver: socket.socket) -> None:
        self._socket = receiver
        self.port: int = receiver.getsockname()[1]
        self.counts: dict[int, int] = {}
        self.times: list[tuple[float, int]] = []
        self.stamps: dict[int, float] = {}

    @property
    def started(self) -> int:
        """How many jobs have been started, as far as is known, in all processes together."""
        return sum(self.counts.values())

    @property
    def first(self) -> float | None:
        return min((at for at, _ in self.times), default=None)

    @property
    def last(self) -> float | None:
        """The moment of the latest report of how many jobs have been started."""
        return max((at for at, _ in self.times), default=None)

    def take(self, timeout: float) -> bool:
        """Wait at most so many seconds for a report and take it, and those that are there already."""
        deadline = time.monotonic() + timeout
        taken = False
        while True:
            self._socket.settimeout(max(0.0, 0.0 if taken else deadline - time.monotonic()))
            try:
                self._note(json.loads(self._socket.recv(4096)))
            except (TimeoutError, BlockingIOError):
                return taken
            taken = True

    def _note(self, report: dict[str, Any]) -> None:
        if "number" in report:
            self.stamps.setdefault(report["number"], report["at"])
            return
        self.counts[report["pid"]] = max(report["count"], self.counts.get(report["pid"], 0))
        self.times.append((report["at"], report["count"]))


@contextmanager
def listening() -> Iterator[Reports]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        receiver.bind(("127.0.0.1", 0))
        yield Reports(receiver)
