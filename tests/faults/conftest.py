"""The fixtures of the process tests, also for faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import ledger, project_env, start

from .deploys import Deploy

__all__ = ["ledger", "project_env", "start"]


@pytest.fixture
def deploy(project_env: dict[str, str], tmp_path: Path) -> Iterator[Deploy]:
    """The next release of django_jobs. Ask for it before ``start``: the tables are put back when all processes are gone."""
    deploy = Deploy(project_env, tmp_path)
    yield deploy
    deploy.undo()
