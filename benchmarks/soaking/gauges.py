"""What must stay level: memory, connections, dead rows. Looked at every few seconds, judged at the end."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil
from django.db import Error, connection

from .fleet import Fleet

EVERY = 2.0


@dataclass(frozen=True)
class Sample:
    """One look. ``memory`` is the largest worker's in bytes; ``oldest`` the longest that a ready job waits, in seconds."""

    at: float
    memory: int
    connections: int
    dead_rows: int
    unfinished: int
    oldest: float


class Gauges(threading.Thread):
    """Takes samples until it is told to stop."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(name="gauges", daemon=True)
        self.samples: list[Sample] = []
        self._fleet = fleet
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        while not self._stopping.wait(EVERY):
            try:
                self.samples.append(self._look())
            except Error:
                connection.close()
        connection.close()

    def _look(self) -> Sample:
        memory = 0
        for worker in self._fleet.workers():
            with suppress(psutil.Error):
                memory = max(memory, worker.memory_info().rss)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'worker'),"
                " (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'django_jobs_job'), count(*),"
                " coalesce(extract(epoch FROM now() - min(coalesce(run_after, enqueued_at))"
                " FILTER (WHERE state = 'ready')), 0)"
                " FROM django_jobs_job WHERE state NOT IN ('succeeded', 'failed', 'cancelled')"
            )
            connections, dead_rows, unfinished, oldest = cursor.fetchone()
        return Sample(time.monotonic(), memory, connections, dead_rows or 0, unfinished, float(oldest))

    def rising(self) -> list[str]:
        """Return what has gone up from the first third of the run to the last, by more than it may."""
        third = len(self.samples) // 3
        if third < 5:
            return []
        first, last = self.samples[:third], self.samples[-third:]
        limits: dict[str, tuple[Callable[[Sample], float], float, float]] = {
            "memory of the largest worker (MB)": (lambda sample: sample.memory / 1e6, 1.15, 10),
            "connections": (lambda sample: sample.connections, 1.25, 5),
            "dead rows": (lambda sample: sample.dead_rows, 2.0, 5000),
        }
        found = []
        for name, (read, factor, more) in limits.items():
            before, after = (statistics.median(map(read, samples)) for samples in (first, last))
            if after > before * factor + more:
                found.append(f"{name}: {before:,.0f} in the first third, {after:,.0f} in the last")
        return found

    def summary(self) -> list[str]:
        """Return one line for each gauge: median of the thirds, and the greatest value."""
        third = max(1, len(self.samples) // 3)
        thirds = [self.samples[at : at + third] for at in (0, third, 2 * third)]
        lines = []
        for name, read in _READERS.items():
            medians = " / ".join(f"{statistics.median(map(read, part)):,.0f}" for part in thirds if part)
            most = max(map(read, self.samples), default=0)
            lines.append(f"{name:<34} {medians}, at most {most:,.0f}")
        return lines


_READERS: dict[str, Callable[[Sample], float]] = {
    "memory of the largest worker, MB": lambda sample: sample.memory / 1e6,
    "connections of workers": lambda sample: sample.connections,
    "dead rows": lambda sample: sample.dead_rows,
    "unfinished jobs": lambda sample: sample.unfinished,
    "longest wait of a ready job, s": lambda sample: sample.oldest,
}
