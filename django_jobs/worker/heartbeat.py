"""Renewing leases: one UPDATE for all the processes that a supervisor answers for.

The supervisor beats for its workers, so that one whose interpreter is held up by C code does not look dead. It leaves out
those that have ended and those whose own loops have stood still for ``HANG_TIMEOUT``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from .. import signals
from ..models import Worker
from .service import Service

logger = logging.getLogger("django_jobs")


class Heartbeat(Service):
    name = "heartbeat"

    def __init__(
        self,
        alive: Callable[[], list[str]],
        interval: float,
        timeout: float,
        on_gone: Callable[[set[str]], None],
        on_death: Callable[[Service], None] | None = None,
    ) -> None:
        super().__init__(on_death)
        self._alive = alive
        self._interval = interval
        self._lease = timedelta(seconds=timeout)
        self._on_gone = on_gone
        self._renewed_at = time.monotonic()

    @property
    def is_fresh(self) -> bool:
        """Say whether our leases are live: counted from when we began to renew them, by our own clock."""
        return time.monotonic() - self._renewed_at < self._lease.total_seconds()

    def run_once(self) -> float:
        began = time.monotonic()
        worker_ids = self._alive()
        gone = Worker.objects.extend(worker_ids, self._lease) if worker_ids else set()
        self._renewed_at = began
        for worker_id in worker_ids:
            if worker_id not in gone:
                signals.send(signals.worker_heartbeat, Worker, worker_id=worker_id)
        if gone:
            self._on_gone(gone)
        return self._interval
