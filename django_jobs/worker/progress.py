"""The progress of running jobs, between the threads that report it and the exchange that writes it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..context import Progress

# How often the progress of a job is written (seconds).
PROGRESS_INTERVAL = 1.0


class ProgressBoard:
    """The latest progress of each job that is not written yet. Jobs' threads put it up, the exchange takes it down."""

    def __init__(self) -> None:
        self._latest: dict[int, Progress] = {}
        self._taken_at = 0.0

    def show(self, job_id: int, progress: Progress) -> None:
        self._latest[job_id] = progress

    def due(self, ended: Iterable[int]) -> dict[int, Any]:
        """Return what is to be written now: all of it once a second, and at once that of jobs that have ended."""
        if not self._latest:
            return {}
        now = time.monotonic()
        ids = list(ended)
        if now >= self._taken_at + PROGRESS_INTERVAL:
            self._taken_at = now
            ids = list(self._latest)
        return {job_id: self._latest[job_id] for job_id in ids if job_id in self._latest}

    def take_down(self, written: Mapping[int, Any]) -> None:
        """Forget what has been written, where no later progress has come meanwhile."""
        for job_id, progress in written.items():
            if self._latest.get(job_id) is progress:
                del self._latest[job_id]

    def forget(self, job_id: int) -> None:
        self._latest.pop(job_id, None)

    def due_in(self) -> float | None:
        """Return the seconds until something is to be written; None if there is nothing."""
        return max(0.0, self._taken_at + PROGRESS_INTERVAL - time.monotonic()) if self._latest else None
