"""What a job does to its thread's database connection is not seen by the next job on that thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connection, connections, transaction

from django_jobs.models import Queue
from django_jobs.outcomes import Outcome
from django_jobs.worker import sessions

from .clocks import Clock
from .conftest import wait_until
from .executors import Loop, Threads

pytestmark = pytest.mark.django_db(transaction=True)

has_row_locks = connection.features.has_select_for_update
on_postgresql = pytest.mark.skipif(not has_row_locks, reason="PostgreSQL only")
on_sqlite = pytest.mark.skipif(has_row_locks, reason="SQLite only")


@pytest.fixture
def one() -> Iterator[Threads]:
    threads = Threads(1)
    yield threads
    threads.end()


def execute(*statements: Any) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def value_of(statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def session() -> Any:
    """Return the driver's connection of this thread."""
    connection.ensure_connection()
    return connection.connection


def use_the_database() -> list[Any]:
    """Write, read, and tell what the state of the connection is."""
    with transaction.atomic():
        Queue.objects.declare("written by the next job")
    is_in_atomic_block: bool = connection.in_atomic_block
    return [connection.get_autocommit(), is_in_atomic_block, sorted(Queue.objects.values_list("name", flat=True))]


def ran_clean(outcome: Outcome) -> bool:
    return bool(outcome.result == [True, False, ["written by the next job"]])


# What a job may leave behind


def a_closed_connection() -> None:
    session()
    connection.close()


def a_connection_closed_past_django() -> None:
    session().close()


def an_aborted_transaction() -> None:
    transaction.atomic().__enter__()
    with suppress(DatabaseError):
        execute("SELECT * FROM nowhere")


def an_open_transaction() -> None:
    transaction.atomic().__enter__()
    Queue.objects.declare("never committed")


def two_open_transactions() -> None:
    transaction.atomic().__enter__()
    transaction.atomic().__enter__()
    Queue.objects.declare("never committed")


def a_transaction_marked_for_rollback() -> None:
    transaction.atomic().__enter__()
    Queue.objects.declare("never committed")
    transaction.set_rollback(True)


def a_connection_closed_inside_a_transaction() -> None:
    transaction.atomic().__enter__()
    Queue.objects.declare("never committed")
    connection.close()


def no_autocommit() -> None:
    transaction.set_autocommit(False)
    Queue.objects.create(name="never committed")


def a_transaction_begun_in_sql() -> None:
    execute("BEGIN")
    Queue.objects.declare("never committed")


def a_transaction_begun_past_django() -> None:
    session().cursor().execute("BEGIN").execute("DELETE FROM django_jobs_queue")


def a_failed_query() -> None:
    execute("SELECT * FROM nowhere")


def an_error_inside_a_transaction() -> None:
    with transaction.atomic():
        Queue.objects.declare("never committed")
        execute("SELECT * FROM nowhere")


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
def test_an_error_of_a_query_costs_no_connection(one: Threads, leave: Callable[[], Any]) -> None:
    used: list[Any] = []
    one.run(lambda: used.append(session()))

    outcome = one.run(leave)
    one.run(lambda: used.append(session()))

    assert outcome.verb == "retry"
    assert used[0] is used[1]


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


@on_postgresql
def test_the_connection_of_coroutines_is_checked_after_idling(clock: Clock) -> None:
    loop = Loop()
    pid = loop.run(sync_to_async(lambda: value_of("SELECT pg_backend_pid()"))).result
    end_session(pid)
    clock.advance(sessions.CHECK_AFTER_IDLE)

    outcome = loop.run(sync_to_async(use_the_database))

    loop.end()
    assert ran_clean(outcome), outcome


# Connections that are kept


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


def end_session(pid: int) -> None:
    execute(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: value_of(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") == 0)


@on_postgresql
def test_a_connection_that_was_cut_off_while_it_was_idle_is_replaced_before_the_next_job(
    one: Threads, clock: Clock
) -> None:
    cut_off(one)
    clock.advance(sessions.CHECK_AFTER_IDLE)

    outcome = one.run(use_the_database)

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
