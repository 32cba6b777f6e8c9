"""Clocks that a test puts forward, for the modules that it names."""

from __future__ import annotations

import time
from types import ModuleType, SimpleNamespace

import pytest


class Clock:
    """The monotonic clock, some seconds ahead of the real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
        self._ahead = 0.0
        ahead = SimpleNamespace(monotonic=self.monotonic)
        for module in modules:
            monkeypatch.setattr(module, "time", ahead)

    def advance(self, seconds: float) -> None:
        self._ahead += seconds

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead


class StillClock(Clock):
    """A monotonic clock that stands still until the test puts it forward, however slow the machine is."""

    def monotonic(self) -> float:
        return 1000.0 + self._ahead
