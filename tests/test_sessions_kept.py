"""Which connections threads keep between jobs, which they check, and which go back to a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction

from django_jobs.worker import sessions

from .clocks import Clock
from .executors import Loop, Threads
from .leftovers import (
    a_connection_closed_past_django,
    an_aborted_transaction,
    an_open_transaction,
    end_session,
    execute,
    no_autocommit,
    ran_clean,
    session,
    use_the_database,
    value_of,
)

pytestmark = pytest.mark.django_db(transaction=True)

has_row_locks = connection.features.has_select_for_update
on_postgresql = pytest.mark.skipif(not has_row_locks, reason="PostgreSQL only")
on_sqlite = pytest.mark.skipif(has_row_locks, reason="SQLite only")


@pytest.fixture
def one() -> Iterator[Threads]:
    threads = Threads(1)
    yield threads
    threads.end()


def test_a_thread_keeps_its_connection_between_jobs_also_where_its_max_age_is_0(one: Threads) -> None:
    assert connection.settings_dict["CONN_MAX_AGE"] == 0
    used: list[Any] = []

    for _ in range(3):
        one.run(lambda: used.append(session()))

    assert used[0] is used[1] is used[2]


@pytest.mark.parametrize(
    "statement",
    ["UPDATE django_jobs_queue\nSET name = 'x'", "SELECT name AS reset FROM django_jobs_queue", "SELECT 1 OFFSET 2"],
)
def test_ordinary_statements_do_not_cost_the_connection(one: Threads, statement: str) -> None:
    used: list[Any] = []

    def body() -> None:
        used.append(session())
        execute(statement)

    one.run(body)
    one.run(body)

    assert used[0] is used[1]


@on_postgresql
def test_settings_of_one_transaction_do_not_cost_the_connection(one: Threads) -> None:
    used: list[Any] = []

    def body() -> None:
        used.append(session())
        with transaction.atomic():
            execute("SET LOCAL statement_timeout = 1234", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    one.run(body)
    one.run(body)

    assert used[0] is used[1]


def test_a_connection_past_the_max_age_of_the_project_is_replaced(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 60)
    one = Threads(1)
    used: list[Any] = []

    one.run(lambda: used.append(session()))
    clock.advance(30)
    one.run(lambda: used.append(session()))
    clock.advance(31)
    one.run(lambda: used.append(session()))
    one.run(lambda: used.append(session()))
    one.end()

    assert used[0] is used[1] is used[2]
    assert used[2] is not used[3]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which connections are idle or old."""
    return Clock(monkeypatch, sessions)


def cut_off(one: Threads) -> None:
    """Let the server end the session of the thread, as a restart or a firewall does."""
    end_session(one.run(lambda: value_of("SELECT pg_backend_pid()")).result)


@on_postgresql
def test_a_connection_that_was_cut_off_while_it_was_idle_is_replaced_before_the_next_job(
    one: Threads, clock: Clock
) -> None:
    cut_off(one)
    clock.advance(sessions.CHECK_AFTER_IDLE)

    outcome = one.run(use_the_database)

    assert ran_clean(outcome), outcome


@on_postgresql
def test_the_connection_of_coroutines_is_checked_after_idling(clock: Clock) -> None:
    loop = Loop()
    pid = loop.run(sync_to_async(lambda: value_of("SELECT pg_backend_pid()"))).result
    loop.settle()
    end_session(pid)
    clock.advance(sessions.CHECK_AFTER_IDLE)

    outcome = loop.run(sync_to_async(use_the_database))

    loop.end()
    assert ran_clean(outcome), outcome


@on_postgresql
def test_a_connection_that_breaks_in_use_fails_one_job_and_is_replaced(one: Threads) -> None:
    cut_off(one)

    broken, following = one.run(use_the_database), one.run(use_the_database)

    assert broken.verb == "retry"
    assert ran_clean(following), following


# Django's own pool


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A pool of two connections, one of which this thread keeps; the other is for threads that begin from now on."""
    pytest.importorskip("psycopg_pool")
    # This thread's own was not made by the pool.
    connection.close()
    monkeypatch.setitem(
        connections.settings["default"]["OPTIONS"], "pool", {"min_size": 1, "max_size": 2, "timeout": 5}
    )
    yield
    connection.close()
    connection.close_pool()


@on_postgresql
def test_a_connection_goes_back_to_the_pool_after_each_job(pool: None) -> None:
    first, second = Threads(1), Threads(1)

    outcomes = [threads.run(use_the_database) for threads in (first, second, first)]

    first.end()
    second.end()
    assert all(map(ran_clean, outcomes)), outcomes


@on_postgresql
@pytest.mark.parametrize(
    "leave", [an_open_transaction, an_aborted_transaction, no_autocommit, a_connection_closed_past_django]
)
def test_what_a_job_leaves_behind_does_not_come_back_from_the_pool(pool: None, leave: Callable[[], Any]) -> None:
    one = Threads(1)
    one.run(leave)

    following = one.run(use_the_database)

    one.end()
    assert ran_clean(following), following


@on_postgresql
def test_a_setting_that_a_job_changes_does_not_come_back_from_the_pool(pool: None) -> None:
    one = Threads(1)
    one.run(lambda: execute("SET statement_timeout = 1234"))

    following = one.run(lambda: value_of("SHOW statement_timeout"))

    one.end()
    assert following.result == "0"
