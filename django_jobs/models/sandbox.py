"""Tables of our own beside the project's: in a schema (PostgreSQL) or a file (SQLite) that is removed at the end.

While a sandbox is open, everything of this process that asks for the jobs database gets the sandbox: it is a database
alias with the project's settings, but for the place. The project's rows are never in reach, and its workers never see
the rows in here. What they do hear are hints: PostgreSQL's NOTIFY is by database, so they may look for jobs in vain.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management.color import no_style
from django.db import Error, connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.utils.connection import ConnectionDoesNotExist

from .. import conf
from ..exceptions import JobsError
from .attempt import Attempt
from .database import JobsRouter, jobs_connection, prepare_for_workers
from .job import Job
from .lease import Lease
from .result import Result

PREFIX = "django_jobs_bench_"

# Dropping waits this long (seconds) for a session of ours that is still at it.
_DROP_WITHIN = 30


class NoSandbox(JobsError):
    """A place of our own cannot be made, or not be removed. The message says what to do."""


@dataclass(frozen=True)
class Plan:
    """What is going to be made: ``name`` is the alias and the schema, ``folder`` that of the file, if it is one."""

    name: str
    database: str
    server: str
    folder: Path | None


def plan_sandbox() -> Plan:
    """Look at the project's jobs database and say where the sandbox will be. Raise NoSandbox where there can be none."""
    try:
        connection = jobs_connection()
        connection.ensure_connection()
    except ConnectionDoesNotExist as error:
        raise NoSandbox(f"DJANGO_JOBS['DATABASE'] names {conf.database()!r}, which DATABASES does not have.") from error
    except (Error, ImproperlyConfigured) as error:
        raise NoSandbox(f"The database {conf.database()!r} cannot be used: {str(error).strip()}") from error
    if connection.in_atomic_block:
        raise NoSandbox("A sandbox cannot be made inside a transaction: other sessions would not see it.")
    name = PREFIX + secrets.token_hex(4)
    if _is_file(connection):
        return Plan(name, connection.alias, _server(connection), _folder_beside(connection))
    if not _has_schemas(connection):
        raise NoSandbox(f"The database {connection.alias!r} is {connection.display_name}, not PostgreSQL or SQLite.")
    return Plan(name, connection.alias, _server(connection), None)


@contextmanager
def sandbox(plan: Plan) -> Iterator[None]:
    """Let everything inside use empty tables of its own. Whatever happens inside, nothing is left behind."""
    project = connections[plan.database]
    place = _schema(project, plan.name) if plan.folder is None else _file(project, plan.folder)
    # Neither the project's middleware nor its duties: they may do anything to its data.
    ours = conf.changed(DATABASE=plan.name, MIDDLEWARE=[], DUTIES=[])
    with place as configured, _alias(plan.name, configured), _first_router(), ours:
        connection = connections[plan.name]
        try:
            _create_tables(connection, plan)
            prepare_for_workers()
            yield
        finally:
            connection.close()
            _close_pool(connection)


def clear() -> None:
    """Empty the tables of jobs. Ids go on counting, as they do in a project."""
    connection = _own_connection()
    tables = [model._meta.db_table for model in (Result, Attempt, Job)]
    connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), tables))


def analyze() -> None:
    """Let the planner know how many jobs there are, as it does in a project after a minute."""
    connection = _own_connection()
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {connection.ops.quote_name(Job._meta.db_table)}")


def round_trip() -> None:
    """Ask the database for nothing."""
    with _own_connection().cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()


def change_one_row() -> None:
    """Change one row, of no meaning, and commit."""
    connection = _own_connection()
    table = connection.ops.quote_name(Lease._meta.db_table)
    value = secrets.token_hex(4)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET holder = %s WHERE name = 'bench'", [value])  # noqa: S608
        if not cursor.rowcount:
            sql = f"INSERT INTO {table} (name, holder, expires_at) VALUES ('bench', %s, CURRENT_TIMESTAMP)"  # noqa: S608
            cursor.execute(sql, [value])


def _own_connection() -> BaseDatabaseWrapper:
    connection = jobs_connection()
    # These statements must never reach the project's own rows.
    assert connection.alias.startswith(PREFIX), connection.alias
    return connection


# What the database is


def _is_file(connection: BaseDatabaseWrapper) -> bool:
    return hasattr(connection, "is_in_memory_db")


def _has_schemas(connection: BaseDatabaseWrapper) -> bool:
    driver: Any = getattr(connection, "Database", None)
    return hasattr(getattr(driver, "Connection", None), "notifies")


def _server(connection: BaseDatabaseWrapper) -> str:
    version = ".".join(str(part) for part in connection.get_database_version())
    return f"{connection.display_name} {version}"


# Places


@contextmanager
def _schema(project: BaseDatabaseWrapper, name: str) -> Iterator[dict[str, Any]]:
    quoted = project.ops.quote_name(name)
    _create_schema(project, quoted)
    try:
        options = dict(project.settings_dict.get("OPTIONS", {}))
        # The last one counts.
        options["options"] = f"{options.get('options') or ''} -c search_path={name}".strip()
        yield {**project.settings_dict, "OPTIONS": options}
    finally:
        _drop_schema(project, quoted)


def _create_schema(project: BaseDatabaseWrapper, quoted: str) -> None:
    try:
        with project.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA {quoted}")
    except Error as error:
        if getattr(error.__cause__, "sqlstate", "") != "42501":
            raise NoSandbox(
                f"No schema can be created in the database {project.alias!r}: {str(error).strip()}"
            ) from error
        with project.cursor() as cursor:
            cursor.execute("SELECT current_user, current_database()")
            user, database = (project.ops.quote_name(each) for each in cursor.fetchone())
        raise NoSandbox(
            f"The user {user} may not create a schema in the database {database}. "
            f"As its owner, run: GRANT CREATE ON DATABASE {database} TO {user};"
        ) from error


def _drop_schema(project: BaseDatabaseWrapper, quoted: str) -> None:
    try:
        project.close_if_unusable_or_obsolete()
        with transaction.atomic(using=project.alias), project.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{_DROP_WITHIN}s'")
            cursor.execute("SET LOCAL client_min_messages = warning")
            cursor.execute(f"DROP SCHEMA IF EXISTS {quoted} CASCADE")
    except Error as error:
        raise NoSandbox(
            f"The schema {quoted} could not be dropped: {str(error).strip()}. Run: DROP SCHEMA {quoted} CASCADE;"
        ) from error


def _folder_beside(project: Any) -> Path:
    """Return where the file goes: beside the project's, on the same disk; elsewhere if it has none or nobody may write."""
    name = str(project.settings_dict["NAME"])
    elsewhere = Path(tempfile.gettempdir())
    if project.is_in_memory_db() or name.startswith("file:"):
        return elsewhere
    folder = Path(name).absolute().parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return elsewhere


@contextmanager
def _file(project: BaseDatabaseWrapper, folder: Path) -> Iterator[dict[str, Any]]:
    own = tempfile.mkdtemp(prefix=PREFIX, dir=folder)
    try:
        yield {**project.settings_dict, "NAME": str(Path(own) / "jobs.sqlite3")}
    finally:
        shutil.rmtree(own)


@contextmanager
def _alias(name: str, configured: dict[str, Any]) -> Iterator[None]:
    connections.settings[name] = configured
    try:
        yield
    finally:
        with suppress(AttributeError):
            del connections[name]
        del connections.settings[name]


def _close_pool(connection: Any) -> None:
    """Close the pool of Django's own, which is by alias, where the database has such a thing."""
    if hasattr(connection, "close_pool"):
        connection.close_pool()


@contextmanager
def _first_router() -> Iterator[None]:
    """Let no router of the project's send our rows to its own tables."""
    before = router.routers
    router.routers = [JobsRouter(), *before]
    try:
        yield
    finally:
        router.routers = before


def _create_tables(connection: BaseDatabaseWrapper, plan: Plan) -> None:
    try:
        if plan.folder is None:
            _must_be_in_schema(connection, plan.name)
        executor = MigrationExecutor(connection)
        ours = executor.loader.graph.leaf_nodes("django_jobs")
        if ours:
            executor.migrate(ours)
            return
        # The project has switched migrations off, as some do for tests.
        with connection.schema_editor() as editor:
            for model in apps.get_app_config("django_jobs").get_models():
                editor.create_model(model)
    except Error as error:
        raise NoSandbox(f"The tables cannot be created in {plan.name}: {str(error).strip()}") from error


def _must_be_in_schema(connection: BaseDatabaseWrapper, name: str) -> None:
    """Raise NoSandbox if a pooler or the project's own code has set another search path: its rows would be in reach."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()")
        (current,) = cursor.fetchone()
    if current != name:
        raise NoSandbox(
            f"A new session does not begin in the schema {name!r} but in {current!r}: a pooler or a signal receiver sets "
            "the search path. Run the bench with settings that connect to PostgreSQL itself."
        )
