"""The fixtures of the process tests, also for faults, and a server that may be stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.process.conftest import ledger, project_env, start

from .deploys import Deploy
from .server import Server

__all__ = ["ledger", "project_env", "start"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all faults as slow: they are told once, whatever the number of Pythons."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def deploy(project_env: dict[str, str], tmp_path: Path) -> Iterator[Deploy]:
    """The next release of django_jobs. Ask for it before ``start``: the tables are put back when all processes are gone."""
    deploy = Deploy(project_env, tmp_path)
    yield deploy
    deploy.undo()


@pytest.fixture(scope="session")
def own_server(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    with Server() as server:
        server.start()
        with django_db_blocker.unblock():
            server.migrate()
        yield server


@pytest.fixture
def server(own_server: Server, transactional_db: None) -> Iterator[Server]:
    """Return a server of the session's own, running and empty; the test's own queries go there."""
    own_server.start()
    own_server.empty()
    with own_server.instead():
        yield own_server
