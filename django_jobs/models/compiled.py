"""Statements that the ORM builds once and that are then executed many times, on PostgreSQL.

To build and compile a query costs a millisecond of Python, several times what the database takes to answer it. A
queryset is compiled here with *holes* in the places of the values to come, and its SQL is kept. It is executed through
Django's cursor with its values bound by the server, so that its text stays the same and can be prepared.

Where the database cannot do this (``can_compile``), the querysets themselves are executed; tests compare the two.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, DataError, OperationalError, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Value
from django.db.models.sql import UpdateQuery

logger = logging.getLogger("django_jobs")

# Plans for few rows of a large table, made once and whatever the statistics say: they are as old as the last ANALYZE, and
# a queue may have grown from nothing to a million rows since. To plan each turn anew takes longer than to execute it.
_PLANNER = {f"enable_{plan}": "off" for plan in ("seqscan", "sort", "hashjoin", "mergejoin", "bitmapscan")}
_PLANNER["plan_cache_mode"] = "force_generic_plan"
# What PostgreSQL says of a prepared statement that the session does not have, or has already.
_NOT_PREPARED, _PREPARED_TWICE = "26000", "42P05"
# What it says of one whose columns have another type since a migration.
_PLAN_OUTDATED = "0A000"

# Aliases of databases that turned out to be behind a pooler.
_with_pooler: set[str] = set()
# The type of times: its number is the same in every PostgreSQL.
_TIMESTAMPTZ = 1184

# How many rows of a queryset are wanted, to be replaced by a hole.
_LIMIT = 7_654_321


class Hole(Value):
    """A place in a compiled query: what is written here comes into its SQL as it is, such as ``%(worker_id)s``."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[()]]:
        return str(self.value), ()


def can_compile(connection: BaseDatabaseWrapper) -> bool:
    """Say whether the database has statements that change rows inside others, and a driver that binds on the server."""
    driver: Any = getattr(connection, "Database", None)
    return hasattr(driver, "ClientCursor") and connection.features.has_select_for_update_skip_locked


def compile_select(rows: models.QuerySet[Any], using: str, limit: Hole) -> str:
    """Return the SQL of a query for the first ``limit`` rows. Call it in a transaction: Django asks for one to lock."""
    sql, parameters = rows[:_LIMIT].query.get_compiler(using).as_sql()
    return _with_constants(sql.replace(f"LIMIT {_LIMIT}", f"LIMIT {limit.value}"), parameters)


def compile_update(rows: models.QuerySet[Any], changes: Mapping[str, Any], using: str) -> str:
    """Return the SQL of ``rows.update(**changes)``."""
    query: Any = rows.query.chain(UpdateQuery)
    query.add_update_values(changes)
    sql, parameters = query.get_compiler(using).as_sql()
    return _with_constants(sql, parameters)


def _with_constants(sql: str, parameters: Sequence[Any]) -> str:
    """Write the parameters that are no holes into the text: the planner uses a partial index for constants only."""
    left = list(parameters)
    written = re.sub(r"%s", lambda _: _literal(left.pop(0)), sql)
    assert not left
    return written


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, timedelta):
        return f"interval '{value.total_seconds()} seconds'"
    assert isinstance(value, str), value
    return "'" + str(value).replace("'", "''").replace("%", "%%") + "'"


def execute(connection: BaseDatabaseWrapper, sql: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Execute a compiled statement and return its rows."""
    connection.ensure_connection()
    driver: Any = connection.Database  # type: ignore[attr-defined]
    bound = driver.Cursor(connection.connection)
    if settings.USE_TZ:
        # Django's loader of times is made in Python, and would cost as much as all else of a row.
        bound.adapters.register_loader(_TIMESTAMPTZ, driver.adapters.get_loader(_TIMESTAMPTZ, driver.pq.Format.TEXT))
    try:
        with connection._prepare_cursor(bound) as cursor:  # type: ignore[attr-defined]
            cursor.execute(sql, values)
            try:
                return list(cursor.fetchall())
            except DataError as error:
                return _with_readable_times(driver, bound, error)
    except DatabaseError as error:
        state = getattr(error.__cause__, "sqlstate", "")
        if state in (_NOT_PREPARED, _PREPARED_TWICE):
            # A pooler that the settings do not tell of.
            _with_pooler.add(connection.alias)
        elif state != _PLAN_OUTDATED:
            raise
        # It is no fault of the values: the caller tries again on another connection.
        raise OperationalError(f"A session of database {connection.alias!r} was not kept: {error}") from error


def _with_readable_times(driver: Any, cursor: Any, error: DataError) -> list[tuple[Any, ...]]:
    """Return the rows of the driver's cursor with None for each time that Python cannot hold: infinity, or before Christ.

    Such a row was written past us. Its job runs without that time, and the jobs beside it as ever.
    """
    logger.warning("A claimed job has a time that cannot be read, and runs without it: %s", error)
    exact = cursor.adapters.get_loader(_TIMESTAMPTZ, driver.pq.Format.TEXT)

    class Tolerant(driver.adapt.Loader):  # type: ignore[misc, name-defined]
        def load(self, data: Any) -> Any:
            with suppress(driver.Error):
                return exact(self.oid, self.connection).load(data)

    cursor.adapters.register_loader(_TIMESTAMPTZ, Tolerant)
    # The cursor's own one keeps the loaders with which it began.
    transformer = driver.adapt.Transformer(cursor)
    transformer.set_pgresult(cursor.pgresult)
    rows: list[tuple[Any, ...]] = transformer.load_rows(0, cursor.pgresult.ntuples, tuple)
    return rows


def own_session(connection: BaseDatabaseWrapper) -> None:
    """Set up the connection of a thread that uses it for nothing but its turns: prepared statements, plans.

    Costs nothing when it has been done. Left out where sessions are shared: with Django's pool, or behind a pooler.
    """
    if not can_compile(connection) or _is_shared(connection):
        return
    connection.ensure_connection()
    session: Any = connection.connection
    if getattr(session, "django_jobs_owns_it", False):
        return
    with connection.cursor() as cursor:
        if _is_behind_pooler(connection, cursor):
            _with_pooler.add(connection.alias)
            return
        ours = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _PLANNER.items())
        cursor.execute(f"SELECT {ours}")
    session.prepare_threshold = 0
    session.django_jobs_owns_it = True


def has_pooler(connection: BaseDatabaseWrapper) -> bool:
    """Say whether each transaction may have another session, as with a pooler in transaction mode.

    DISABLE_SERVER_SIDE_CURSORS tells of it, Django's own setting for such poolers. Where it is not set a pooler is
    noticed by the exchange when it connects; one that keeps sessions is trusted where it is set to False.
    """
    return bool(_told(connection)) or connection.alias in _with_pooler


def _is_shared(connection: BaseDatabaseWrapper) -> bool:
    return bool(connection.settings_dict.get("OPTIONS", {}).get("pool")) or has_pooler(connection)


def _is_behind_pooler(connection: BaseDatabaseWrapper, cursor: Any) -> bool:
    """Say whether somebody else answered when we connected than the server process that answers now."""
    if _told(connection) is not None:
        return False
    cursor.execute("SELECT pg_backend_pid()")
    return bool(cursor.fetchone()[0] != connection.connection.info.backend_pid)


def _told(connection: BaseDatabaseWrapper) -> bool | None:
    told: bool | None = connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    return told
