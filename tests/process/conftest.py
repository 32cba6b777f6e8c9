"""Fixtures of the process tests, and what they ask of the database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection

from tests.processes import Command, RunWorker

from .ledger import Ledger

# Short leases, so that a test of a crash takes seconds. Long enough for a busy machine to renew them.
QUICK = ("--heartbeat-interval=0.2", "--heartbeat-timeout=1", "--poll-interval=0.1", "--concurrency=2")

# What a site with workers tells SQLite: wait for the other writers, and do not let readers wait for them.
SQLITE = {
    "timeout": "20",
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}

# For tests that leases are no part of: a host that a busy machine keeps waiting for a second is not taken for dead.
PATIENT = ("--heartbeat-timeout=30",)

Start = Callable[..., Command]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    directory = tmp_path / "ledger"
    directory.mkdir()
    return Ledger(directory)


@pytest.fixture
def project_env(project_env: dict[str, str]) -> dict[str, str]:
    """Add what SQLite needs with several processes; PostgreSQL needs nothing."""
    if connection.vendor == "sqlite":
        project_env["DATABASE_URL"] += "?" + urlencode(SQLITE)
    return project_env


@pytest.fixture
def start(runworker: RunWorker, ledger: Ledger) -> Start:
    """Return a function that starts ``runworker`` with short leases and with the ledger; flags given win."""

    def start(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> Command:
        return runworker(*QUICK, *arguments, env={**ledger.env, **(env or {})}, **options)

    return start
