"""The fixtures of the process tests, also for faults."""

from __future__ import annotations

from tests.process.conftest import ledger, project_env, start

__all__ = ["ledger", "project_env", "start"]
