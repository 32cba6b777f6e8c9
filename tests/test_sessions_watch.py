"""The watch over the connections of a thread: it sees them all, also those that a job has exchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections

from .executors import Loop, Threads
from .leftovers import execute, ran_clean, use_the_database, value_of

pytestmark = pytest.mark.django_db(transaction=True)

has_row_locks = connection.features.has_select_for_update

if has_row_locks:
    CHANGE, LOOK, BEFORE, CHANGED = "SET statement_timeout = 1234", "SHOW statement_timeout", "0", "1234ms"
else:
    CHANGE, LOOK = "PRAGMA recursive_triggers = ON", "PRAGMA recursive_triggers"
    BEFORE, CHANGED = 0, 1  # type: ignore[assignment]


@pytest.fixture
def one() -> Iterator[Threads]:
    threads = Threads(1)
    yield threads
    threads.end()


def change() -> None:
    execute(CHANGE)


def exchange_the_connection() -> None:
    connection.close()
    del connections["default"]


def use_the_connection_and_exchange_it() -> None:
    execute("SELECT 1")
    exchange_the_connection()


def exchange_the_connection_and_use_it() -> None:
    exchange_the_connection()
    execute("SELECT 1")


def close_all() -> None:
    connections.close_all()


@pytest.mark.parametrize(
    "leave",
    [exchange_the_connection, use_the_connection_and_exchange_it, exchange_the_connection_and_use_it, close_all],
)
def test_what_the_next_jobs_change_is_noticed_after_a_job_has_exchanged_the_connection(
    one: Threads, leave: Callable[[], None]
) -> None:
    one.run(leave)

    changed = one.run(lambda: [change(), value_of(LOOK)])
    following = one.run(lambda: value_of(LOOK))

    assert (changed.result, following.result) == ([None, CHANGED], BEFORE)
    assert ran_clean(one.run(use_the_database))


def test_what_a_job_changes_on_a_connection_of_its_own_making_is_noticed(one: Threads) -> None:
    def exchange_and_change() -> Any:
        exchange_the_connection()
        change()
        return value_of(LOOK)

    changed, following = one.run(exchange_and_change), one.run(lambda: value_of(LOOK))

    assert (changed.result, following.result) == (CHANGED, BEFORE)


def test_no_wrapper_piles_up_however_many_jobs_run(one: Threads) -> None:
    counts: list[int] = []
    for body in (lambda: None, exchange_the_connection, change, close_all, lambda: None):
        one.run(body)
        one.run(lambda: counts.append(len(connection.execute_wrappers)))

    assert counts == [1] * 5


def test_coroutines_that_exchange_the_connection_are_watched_too() -> None:
    loop = Loop()
    bodies: list[Any] = [exchange_the_connection, change, lambda: value_of(LOOK)]

    results = [loop.run(sync_to_async(body)).result for body in bodies]

    loop.end()
    assert results == [None, None, BEFORE]
