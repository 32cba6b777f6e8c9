"""What a worker and its parts ask of each other."""

from __future__ import annotations

from typing import Protocol


class Startable(Protocol):
    """A part of the worker, as the worker starts it."""

    def start(self) -> None:
        """Begin to work, in threads of its own."""


class Owner(Protocol):
    """The worker, as the exchange sees it. Called in the exchange thread."""

    def pulse(self) -> None:
        """Take note that the exchange advances."""

    def report(self) -> bool:
        """Write the worker's row. False: it is held for lost."""

    def on_due(self) -> None:
        """Take a hint that a scheduled job may be due."""

    def on_lease_lost(self) -> None:
        """End: the jobs are others' now."""

    def on_nothing_left(self) -> None:
        """Decide what to do where there is nothing to run (``burst`` and ``once``)."""
