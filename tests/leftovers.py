"""What jobs leave behind in their thread's database session, and how the next job looks at it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db import DatabaseError, connection, transaction

from django_jobs.models import Queue
from django_jobs.outcomes import Outcome

from .conftest import wait_until


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


def end_session(pid: int) -> None:
    execute(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: value_of(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") == 0)
