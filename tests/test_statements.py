"""How many statements a worker sends to the database, by a worker with its real threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db.backends.signals import connection_created

from django_jobs.models import Job, Queue
from django_jobs.states import JobState
from django_jobs.worker import Worker
from django_jobs.worker import exchange as exchange_module
from django_jobs.worker import leader as leader_module
from django_jobs.worker import wakeup as wakeup_module
from django_jobs.worker.exchange import Exchange

from . import tasks
from .clocks import StillClock
from .conftest import wait_until
from .own_sessions import needs_compiling

pytestmark = [pytest.mark.django_db(transaction=True), needs_compiling]

# So that little but jobs makes the worker ask.
CALM = {"poll_interval": 600, "heartbeat_interval": 600, "heartbeat_timeout": 6000, "shutdown_timeout": 30}


class Statements:
    """What other threads send to the database."""

    def __init__(self) -> None:
        self._here = threading.current_thread()
        self._logs: list[Any] = []
        self.texts: list[str] = []
        self.finished: list[str] = []

    def listen(self, connection: Any, **more: Any) -> None:
        """Keep what is sent over a connection that has just been made in another thread."""
        if threading.current_thread() is not self._here and self._watch not in connection.execute_wrappers:
            connection.execute_wrappers.append(self._watch)
            # Its log has the beginnings and ends of transactions as well.
            connection.force_debug_cursor = True
            self._logs.append(connection.queries_log)

    def _watch(self, execute: Any, sql: Any, params: Any, *more: Any) -> Any:
        if "exchange" in threading.current_thread().name:
            self.texts.append(" ".join(str(sql).split()))
        if isinstance(params, dict) and params.get("ids", "{}") != "{}":
            self.finished.append(params["ids"])
        return execute(sql, params, *more)

    @property
    def count(self) -> int:
        return sum(map(len, self._logs))

    @property
    def about_jobs(self) -> list[str]:
        """The turns of the exchange, and whatever else it reads or writes of jobs."""
        return [text for text in self.texts if '"django_jobs_job"' in text]


@contextmanager
def working(**options: Any) -> Iterator[Statements]:
    """Run a worker, and count its statements from when it has looked for jobs."""
    statements = Statements()
    connection_created.connect(statements.listen)
    try:
        # With several queues a claim first looks at which of them have what comes first.
        with Worker(["default"], **CALM | options):
            wait_until(lambda: any(text.startswith("WITH done") for text in statements.texts))
            yield statements
    finally:
        connection_created.disconnect(statements.listen)


@pytest.fixture(autouse=True)
def queues() -> None:
    Queue.objects.declare("default")


def succeeded(count: int) -> bool:
    return Job.objects.filter(state=JobState.SUCCEEDED).count() == count


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    """What a worker does from time to time is not counted: on a busy machine there is more of it to the same jobs."""
    monkeypatch.setattr(wakeup_module, "LOOKS_AGAIN", ())
    return StillClock(monkeypatch, exchange_module, leader_module)


@pytest.fixture
def quick_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the exchange begin a turn when the threads are done with what they got, as they are on an idle machine."""
    run_once = Exchange.run_once

    def run_once_when_done(self: Exchange) -> float:
        wait_until(lambda: self._outbox._arrivals.qsize() + len(self._outbox.waiting) == len(self._held))
        return run_once(self)

    monkeypatch.setattr(Exchange, "run_once", run_once_when_done)


@pytest.mark.usefixtures("quick_threads")
def test_a_thousand_jobs_that_do_nothing_take_at_most_sixty_statements() -> None:
    with working(concurrency=10) as statements:
        before = statements.count

        tasks.noop.enqueue_many([((), {})] * 1000)

        wait_until(lambda: succeeded(1000))
        sent = statements.count - before

    assert sent <= 60


def test_a_job_on_an_idle_worker_takes_one_statement_to_claim_and_one_to_finish() -> None:
    with working(concurrency=2) as statements:
        before = len(statements.about_jobs)

        job = tasks.noop.enqueue()

        wait_until(lambda: succeeded(1))
        sent = statements.about_jobs[before:]

    assert statements.finished == [f"{{{job.id}}}"]
    # What is more has looked for other jobs: when it began to listen, or when it heard the hint for the job that it had.
    assert {text.split()[0] for text in sent} == {"WITH"}
    assert 2 <= len(sent) <= 4
