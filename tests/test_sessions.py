"""What a job does to its thread's database connection is not seen by the next job on that thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from .conftest import wait_until
from .executors import Loop, Threads
from .leftovers import (
    a_closed_connection,
    a_connection_closed_inside_a_transaction,
    a_connection_closed_past_django,
    a_failed_query,
    a_transaction_begun_in_sql,
    a_transaction_begun_past_django,
    a_transaction_marked_for_rollback,
    an_aborted_transaction,
    an_error_inside_a_transaction,
    an_open_transaction,
    execute,
    no_autocommit,
    ran_clean,
    session,
    two_open_transactions,
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


@pytest.mark.parametrize(
    "leave",
    [
        a_closed_connection,
        a_connection_closed_past_django,
        an_aborted_transaction,
        an_open_transaction,
        two_open_transactions,
        a_transaction_marked_for_rollback,
        a_connection_closed_inside_a_transaction,
        no_autocommit,
        a_transaction_begun_in_sql,
        a_transaction_begun_past_django,
        a_failed_query,
        an_error_inside_a_transaction,
    ],
)
def test_the_next_job_runs_clean_whatever_a_job_leaves_behind(one: Threads, leave: Callable[[], Any]) -> None:
    one.run(leave)

    following = one.run(use_the_database)

    assert ran_clean(following), following
    assert one.executor.is_alive


@pytest.mark.parametrize("leave", [a_failed_query, an_error_inside_a_transaction])
def test_an_error_of_a_query_costs_no_connection_and_no_further_checks(one: Threads, leave: Callable[[], Any]) -> None:
    used: list[Any] = []
    one.run(lambda: used.append(session()))

    outcome = one.run(leave)
    following = one.run(lambda: [used.append(session()), connection.errors_occurred])

    assert outcome.verb == "retry"
    assert used[0] is used[1]
    assert following.result == [None, False]


def composed() -> Any:
    from psycopg import sql

    return sql.SQL("SET {} = 1234").format(sql.Identifier("statement_timeout"))


CHANGES = {
    "SET": ["SET statement_timeout = 1234"],
    "SET SESSION": ["set  session statement_timeout to 1234"],
    "in a transaction": ["BEGIN", "SET statement_timeout = 1234", "COMMIT"],
    "after another statement": ["SELECT 1; SET statement_timeout = 1234"],
    "after a comment": ["/* from the shop */ SET statement_timeout = 1234"],
    "after a line of comment": ["-- from the shop\nSET statement_timeout = 1234"],
    "set_config": ["SELECT set_config('statement_timeout', '1234', false)"],
    "schema of set_config": ["SELECT pg_catalog.set_config('statement_timeout', '1234', false)"],
    "bytes": [b"SET statement_timeout = 1234"],
    "composed": [composed],
}


@on_postgresql
@pytest.mark.parametrize("statements", CHANGES.values(), ids=CHANGES)
def test_a_setting_that_a_job_changes_is_not_seen_by_the_next(one: Threads, statements: list[Any]) -> None:
    made = [statement() if callable(statement) else statement for statement in statements]

    changed = one.run(lambda: [execute(*made), value_of("SHOW statement_timeout")])

    assert changed.result == [None, "1234ms"]
    assert one.run(lambda: value_of("SHOW statement_timeout")).result == "0"


@on_postgresql
@pytest.mark.parametrize(
    ("statement", "trace"),
    [
        ("CREATE TEMP TABLE left_behind (id int)", "SELECT count(*) FROM pg_class WHERE relname = 'left_behind'"),
        ("CREATE OR REPLACE TEMP VIEW left_behind AS SELECT 1", "SELECT count(*) FROM pg_views WHERE viewname = 'left_behind'"),
        ("PREPARE left_behind AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_behind'"),
        ("LISTEN left_behind", "SELECT count(*) FROM pg_listening_channels()"),
        ("SELECT pg_advisory_lock(42)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        ("SELECT pg_try_advisory_lock(42)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
    ],
)  # fmt: skip
def test_what_a_job_makes_in_its_session_ends_with_it(one: Threads, statement: str, trace: str) -> None:
    made = one.run(lambda: [execute(statement), value_of(trace)])

    assert made.result == [None, 1]
    wait_until(lambda: one.run(lambda: value_of(trace)).result == 0)


@on_sqlite
@pytest.mark.parametrize(
    ("statement", "trace", "before"),
    [
        ("PRAGMA recursive_triggers = ON", "PRAGMA recursive_triggers", 0),
        ("PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys", 1),
        ("ATTACH ':memory:' AS left_behind", "SELECT count(*) FROM pragma_database_list WHERE name = 'left_behind'", 0),
        ("CREATE TEMP TABLE left_behind (id int)", "SELECT count(*) FROM sqlite_temp_master", 0),
    ],
)
def test_what_a_job_changes_in_its_sqlite_session_is_not_seen_by_the_next(
    one: Threads, statement: str, trace: str, before: int
) -> None:
    changed = one.run(lambda: [execute(statement), value_of(trace)])

    assert changed.result == [None, 1 - before]
    assert one.run(lambda: value_of(trace)).result == before


def test_queries_kept_for_debugging_do_not_pile_up(one: Threads, settings: Any) -> None:
    settings.DEBUG = True
    one.run(lambda: execute("SELECT 1", "SELECT 2"))

    outcome = one.run(lambda: len(connection.queries_log))

    assert outcome.result == 0


# Coroutines


@pytest.mark.parametrize("leave", [an_open_transaction, an_aborted_transaction, no_autocommit, a_closed_connection])
def test_the_next_coroutine_runs_clean_whatever_one_leaves_behind(leave: Callable[[], Any]) -> None:
    loop = Loop()

    loop.run(sync_to_async(leave))
    outcome = loop.run(sync_to_async(use_the_database))

    loop.end()
    assert ran_clean(outcome), outcome


@on_postgresql
def test_a_setting_that_a_coroutine_changes_is_not_seen_by_the_next() -> None:
    loop = Loop()
    change = sync_to_async(lambda: execute("SET statement_timeout = 1234"))
    look = sync_to_async(lambda: value_of("SHOW statement_timeout"))

    results = [loop.run(body).result for body in (change, look, change, look)]

    loop.end()
    assert results == [None, "0", None, "0"]
