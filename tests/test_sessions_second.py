"""A second database of the project: its connections are watched and put right as those of the first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction

from .executors import Threads
from .leftovers import execute
from .test_sessions_watch import BEFORE, CHANGE, CHANGED, LOOK, change

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")

SECOND = "second"


@pytest.fixture(scope="module", autouse=True)
def second(django_db_setup: None) -> Iterator[None]:
    """Have another alias of the same database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(connections.settings, SECOND, {**connections.settings["default"]})
        yield


@pytest.fixture
def one() -> Iterator[Threads]:
    threads = Threads(1)
    yield threads
    threads.end()


def look_at(alias: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(LOOK)
        return cursor.fetchone()[0]


def change_at(alias: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(CHANGE)
    return look_at(alias)


def test_a_second_database_is_watched_from_the_first_job_on(one: Threads) -> None:
    changed = one.run(lambda: [change_at(SECOND), look_at("default")])
    following = one.run(lambda: [look_at(SECOND), look_at("default")])

    assert (changed.result, following.result) == ([CHANGED, BEFORE], [BEFORE, BEFORE])


def test_a_second_database_keeps_its_connection_while_the_first_is_put_right(one: Threads) -> None:
    used: list[Any] = []

    def body() -> None:
        connections[SECOND].ensure_connection()
        connection.ensure_connection()
        used.append((connections[SECOND].connection, connection.connection))
        change()

    one.run(lambda: execute("SELECT 1"))
    one.run(body)
    one.run(body)

    assert used[0][0] is used[1][0]
    assert used[0][1] is not used[1][1]


def test_a_database_that_became_known_while_the_thread_was_running_is_watched_from_the_next_job_on(
    one: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.delitem(connections.settings, SECOND)
        one.run(lambda: execute("SELECT 1"))
    one.run(lambda: None)

    changed, following = one.run(lambda: change_at(SECOND)), one.run(lambda: look_at(SECOND))

    assert (changed.result, following.result) == (CHANGED, BEFORE)


def test_a_transaction_that_a_job_leaves_open_on_a_second_database_is_rolled_back(one: Threads) -> None:
    def leave() -> None:
        transaction.atomic(using=SECOND).__enter__()
        look_at(SECOND)

    one.run(leave)
    following = one.run(lambda: [connections[SECOND].in_atomic_block, look_at(SECOND)])

    assert following.result == [False, BEFORE]
