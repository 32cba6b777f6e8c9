"""What must hold before a worker starts: a database that answers, with our tables as this code knows them."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder
from django.utils.connection import ConnectionDoesNotExist

from .. import conf, migrations
from ..exceptions import JobsError
from ..models import Job
from ..models.database import jobs_connection, prepare_for_workers

logger = logging.getLogger("django_jobs")


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
        connection.ensure_connection()
        missing = unapplied_migrations()
    if missing:
        raise NotReady(
            f"The database {connection.alias!r} lacks migrations of django_jobs: {', '.join(missing)}. "
            f"Run: manage.py migrate --database {connection.alias}"
        )
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
        prepare_for_workers()


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


def unapplied_migrations() -> list[str]:
    """Return the names of our migrations that the database lacks."""
    connection = jobs_connection()
    if settings.MIGRATION_MODULES.get("django_jobs", "") != "":
        # The project has migrations of its own for us, or none at all: the table must do as a sign.
        return [] if Job._meta.db_table in connection.introspection.table_names() else ["all"]
    ours = {name for _, name, is_package in pkgutil.iter_modules(migrations.__path__) if not is_package}
    applied = {name for app, name in MigrationRecorder(connection).applied_migrations() if app == "django_jobs"}
    return sorted(ours - applied)
