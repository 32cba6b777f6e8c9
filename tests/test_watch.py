"""A loop that waits for an answer that will not come is cut off; one that waits for a lock, or computes, is not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection

from django_jobs.worker.options import resolve_options
from django_jobs.worker.service import Service
from django_jobs.worker.watch import Watch

from .conftest import wait_until
from .rivals import Rival, wait_until_blocked

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not connection.features.has_select_for_update, reason="a database in a file always answers"),
]
TIMEOUT = 30.0
# What no pass of a watch takes: as many looks as lead to a cut, several times over.
MANY = 100


class Loop(Service):
    """Makes one pass, as the test says, and then waits."""

    name = "test"

    def __init__(self, step: Callable[[], Any]) -> None:
        super().__init__()
        self._step: Callable[[], Any] | None = step
        self.error: Exception | None = None

    def run_once(self) -> float:
        step, self._step = self._step, None
        if step is not None:
            try:
                step()
            except OperationalError as error:
                self.error = error
                raise
        return 3600.0


@pytest.fixture
def watched() -> Iterator[Callable[..., tuple[Loop, Watch]]]:
    made: list[Loop] = []

    def watched(step: Callable[[], Any]) -> tuple[Loop, Watch]:
        loop = Loop(step)
        made.append(loop)
        loop.start()
        return loop, Watch([loop], resolve_options({"HEARTBEAT_INTERVAL": 0.2, "HEARTBEAT_TIMEOUT": 1.0}))

    yield watched
    for loop in made:
        assert loop.stop(TIMEOUT)


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def look(watch: Watch, times: int = MANY) -> None:
    """Look as often, and let each question be answered before the next look."""
    for _ in range(times):
        watch.run_once()
        for story in watch._stories:
            if story._question is not None:
                story._question.join(TIMEOUT)


def lock() -> None:
    run("SELECT pg_advisory_xact_lock(4711)")


def test_a_loop_that_waits_for_a_lock_is_left_alone(watched: Callable[..., tuple[Loop, Watch]]) -> None:
    with Rival() as rival:
        rival.begin()
        rival.run(lock)
        loop, watch = watched(lock)
        wait_until_blocked()

        look(watch)

        rival.commit()
    wait_until(lambda: loop.pass_number == 2, timeout=TIMEOUT)
    assert loop.error is None


def test_a_loop_that_computes_in_a_transaction_is_left_alone(watched: Callable[..., tuple[Loop, Watch]]) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def compute() -> None:
        run("SELECT 1")
        inside.set()
        go_on.wait(TIMEOUT)
        run("SELECT 1")

    loop, watch = watched(compute)
    assert inside.wait(TIMEOUT)

    look(watch)

    go_on.set()
    wait_until(lambda: loop.pass_number == 2, timeout=TIMEOUT)
    assert loop.error is None


def test_a_loop_of_many_short_statements_is_left_alone(watched: Callable[..., tuple[Loop, Watch]]) -> None:
    go_on = threading.Event()

    def ask_on() -> None:
        while not go_on.is_set():
            run("SELECT 1")

    loop, watch = watched(ask_on)
    wait_until(lambda: loop.session() is not None)

    look(watch)

    go_on.set()
    wait_until(lambda: loop.pass_number == 2, timeout=TIMEOUT)
    assert loop.error is None
