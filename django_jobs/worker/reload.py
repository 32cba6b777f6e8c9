"""For development: replaces the workers when a source file of the project changes.

Running jobs finish first. New code that does not import ends the new workers, which are started again after a pause, until
it does. The supervisor itself keeps the code it has started with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from django.utils.autoreload import StatReloader

from .service import Service

logger = logging.getLogger("django_jobs")


class Reloader(Service):
    name = "reloader"

    def __init__(self, on_change: Callable[[], None]) -> None:
        super().__init__()
        self._files = StatReloader()
        # Before the first worker starts: what changes while it imports the code is not missed.
        self._seen = self._snapshot()
        self._on_change = on_change

    def run_once(self) -> float:
        now = self._snapshot()
        changed = [path for path, mtime in now.items() if self._seen.get(path, mtime) != mtime]
        self._seen = now
        if changed:
            logger.info("%s has changed; the workers are replaced.", changed[0])
            self._on_change()
        return 1.0

    def _snapshot(self) -> dict[Path, float]:
        return dict(self._files.snapshot_files())
