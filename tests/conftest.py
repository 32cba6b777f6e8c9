"""Fixtures of every test. Read ``tests/processes.py`` for what starts real workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection

from django_jobs import notifications
from django_jobs.models import firing, marks, turn
from django_jobs.worker import exchange, worker
from django_jobs.worker.executors import event_loop

from .processes import PATIENCE, RunWorker, kill_marked_processes, new_marker, wait_until

__all__ = ["wait_until"]
STARTED = pytest.StashKey[RunWorker]()


def pytest_configure() -> None:
    """Hear signals, and let the processes of the tests hear them: in a background job of a shell some are ignored."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that ``make faults`` gives."""
    parser.addoption("--all-faults", action="store_true", help="run the long stories of faults too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long stories to ``make faults``."""
    if config.getoption("--all-faults"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def pytest_report_header() -> str:
    """Say on which database the tests run."""
    address = urlsplit(settings.DATABASE_URL)
    return f"database: {address.scheme} {address.hostname or ''}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the worker processes of a failed test wrote."""
    report = yield
    if report.failed and STARTED in item.stash:
        report.sections += [(f"runworker {command.pid}", command.output()) for command in item.stash[STARTED].commands]
    return report


@pytest.fixture(autouse=True)
def every_hint_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no hint speak for another one: how long the steps of a test take must not decide what is sent."""
    monkeypatch.setattr(notifications, "WINDOW", 0.0)
    monkeypatch.setattr(notifications, "LAST_CALL", 0.0)


@pytest.fixture(autouse=True)
def no_turn_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a turn claims, and from all jobs: after a tenth of a second it would claim nothing."""
    for module in (turn, exchange):
        monkeypatch.setattr(module, "LONGEST_WAIT", 3600.0)
    monkeypatch.setattr(marks, "_SLOW", 3600.0)


@pytest.fixture(autouse=True)
def no_pass_of_schedules_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, all schedules that are due are fired in one pass."""
    monkeypatch.setattr(firing, "LONGEST_PASS", 3600.0)


@pytest.fixture(autouse=True)
def no_end_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, the end of a worker waits for its threads, and its event loop for what follows jobs."""
    for name in ("_JOIN_GRACE", "_LAST_WRITES"):
        monkeypatch.setattr(worker, name, PATIENCE)
    monkeypatch.setattr(event_loop, "_CLEAN_UP_GRACE", PATIENCE)


@pytest.fixture
def project_env(transactional_db: None) -> dict[str, str]:
    """Return the environment in which a process uses this session's test database.

    Other processes see only what is committed, and at the end of the test every table is emptied.
    """
    name = str(connection.settings_dict["NAME"])
    address = urlsplit(settings.DATABASE_URL)
    url = address._replace(path=f"/{name}").geturl()
    if not address.netloc:
        # urlsplit() leaves out an empty host, and SQLite's URLs have one.
        url = f"{address.scheme}:///{name}" + (f"?{address.query}" if address.query else "")
    return {
        # Options of a worker in the tester's own environment would be heard by the workers under test.
        **{variable: value for variable, value in os.environ.items() if not variable.startswith("DJANGO_JOBS_")},
        "DATABASE_URL": url,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def runworker(request: pytest.FixtureRequest, project_env: dict[str, str], tmp_path: Path) -> Iterator[RunWorker]:
    """Return a function that starts ``manage.py runworker`` as a real process and waits until it runs jobs.

    See ``RunWorker``. Whatever is left of the processes at the end of the test is killed.
    """
    marker = new_marker()
    start = RunWorker(project_env | marker, tmp_path)
    request.node.stash[STARTED] = start
    yield start
    kill_marked_processes(marker)
    start.close()
