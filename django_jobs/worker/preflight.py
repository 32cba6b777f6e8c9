"""What must hold before a worker starts: a database that answers, with our tables as this code knows them."""

from __future__ import annotations

import logging
import pkgutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from django.conf import settings
from django.db import Error, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import AddIndex, AlterModelOptions, Migration, RemoveIndex, RenameIndex
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.utils.connection import ConnectionDoesNotExist

from .. import conf
from ..exceptions import JobsError
from ..models import Job
from ..models.database import jobs_connection, prepare_for_workers

logger = logging.getLogger("django_jobs")

# How long (seconds) others who start may have the database locked.
_LOCKED_FOR = 10.0
# What changes how fast this code is, and not what it can do: workers may start before it has been applied.
_CAN_WAIT = (AddIndex, RemoveIndex, RenameIndex, AlterModelOptions)


class NotReady(JobsError):
    """The database is not ready for workers. The message says what to do."""


def check_database(uses_processes: bool, concurrency: int) -> None:
    """Raise NotReady if workers cannot start on the jobs database; get it ready for them."""
    try:
        connection = jobs_connection()
    except ConnectionDoesNotExist as error:
        raise NotReady(f"DJANGO_JOBS['DATABASE'] names {conf.database()!r}, which DATABASES does not have.") from error
    if connection.in_atomic_block:
        raise NotReady("A worker cannot start inside a transaction: its threads would not see what is done there.")
    with explained_errors():
        _once_unlocked(connection.ensure_connection)
        missing = unapplied_migrations()
    if missing:
        told = (
            f"The database {connection.alias!r} lacks migrations of django_jobs: {', '.join(missing)}. "
            f"Run: manage.py migrate --database {connection.alias}"
        )
        if not all(missing.values()):
            raise NotReady(told)
        logger.warning("%s. Workers run without them, if slower.", told)
    _warn_of_small_pool(connection, concurrency)
    is_in_memory: Any = getattr(connection, "is_in_memory_db", None)
    if uses_processes and is_in_memory is not None and is_in_memory():
        raise NotReady(
            "The jobs are in a SQLite database in memory, which worker processes cannot share. "
            "Give it a file, or run one worker in this process with --processes 0."
        )
    if not settings.USE_TZ and not connection.features.supports_timezones and settings.TIME_ZONE != "UTC":
        raise NotReady(
            f"With USE_TZ = False the times in database {connection.alias!r} are in {settings.TIME_ZONE}, and its clock "
            "is in UTC: jobs would run at the wrong time. Set USE_TZ = True, or TIME_ZONE = 'UTC'."
        )
    with explained_errors():
        _once_unlocked(prepare_for_workers)


def _once_unlocked(prepare: Callable[[], None]) -> None:
    """Prepare a connection or the database; again and again while it is locked.

    SQLite waits for a lock, but not where it changes the mode of a file, and several workers may start at once.
    """
    until = time.monotonic() + _LOCKED_FOR
    while True:
        try:
            return prepare()
        except OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= until:
                raise
            time.sleep(0.05)


@contextmanager
def explained_errors() -> Iterator[None]:
    """Turn an error of the database at the start of a worker into NotReady, with the database's own words."""
    try:
        yield
    except Error as error:
        alias = conf.database()
        raise NotReady(f"The database {alias!r} cannot be used: {str(error).strip()}") from error


def _warn_of_small_pool(connection: BaseDatabaseWrapper, concurrency: int) -> None:
    pool = connection.settings_dict.get("OPTIONS", {}).get("pool")
    if not pool:
        return
    # psycopg's pool has 4 connections unless it is told otherwise.
    options = pool if isinstance(pool, dict) else {}
    size = options.get("max_size") or options.get("min_size", 4)
    if size < concurrency + 2:
        logger.warning(
            "The connection pool of database %r has at most %d connections; a worker of concurrency %d needs %d, or its "
            "jobs wait for one another. Raise OPTIONS['pool']['max_size'].",
            connection.alias,
            size,
            concurrency,
            concurrency + 2,
        )


def unapplied_migrations() -> dict[str, bool]:
    """Return the names of our migrations that the database lacks; for each, whether workers can run without it."""
    connection = jobs_connection()
    path, _ = MigrationLoader.migrations_module("django_jobs")
    if path is None:
        # The project makes its tables without migrations: one of them must do as a sign.
        return {} if Job._meta.db_table in connection.introspection.table_names() else {"all": False}
    applied = {name for app, name in MigrationRecorder(connection).applied_migrations() if app == "django_jobs"}
    return {
        name: all(isinstance(operation, _CAN_WAIT) for operation in migration.operations)
        for name, migration in _migrations_in(path).items()
        if name not in applied and not _is_replaced(migration, applied)
    }


def _migrations_in(path: str) -> dict[str, type[Migration]]:
    modules = pkgutil.iter_modules(import_module(path).__path__)
    names = sorted(name for _, name, is_package in modules if not is_package and name[0] not in "_~")
    return {name: import_module(f"{path}.{name}").Migration for name in names}


def _is_replaced(migration: type[Migration], applied: set[str]) -> bool:
    """Say whether this is a squashed migration, and all that it is made of have been applied."""
    replaced = {name for _, name in migration.replaces}
    return bool(replaced) and replaced <= applied
