"""Which database the rows are in, and what it can do. Differences are asked of ``connection.features``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.db import connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Case, F, Value, When
from django.db.models.expressions import Combinable, ExpressionWrapper
from django.db.models.functions import Now
from django.db.models.sql import Query
from django.utils import timezone

from .. import conf

Row = TypeVar("Row", bound=models.Model)

# Options of libpq: how long a connection may take to be made (seconds), and after how long one is given up whose packets
# are not even acknowledged (seconds of silence, seconds between three questions, milliseconds for what was sent).
GIVE_UP = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}

# Whoever writes a later time into a row wants to say "never".
FOREVER = timedelta(days=366 * 100)


class SecondsField(models.FloatField):
    """A duration in seconds, fractions allowed; takes a timedelta too."""

    def to_python(self, value: Any) -> Any:
        return super().to_python(_in_seconds(value))

    def get_prep_value(self, value: Any) -> Any:
        return super().get_prep_value(_in_seconds(value))


class ReadableJSONField(models.JSONField):
    """JSON that can always be read: what no Python can hold is the text that it was, to be judged by whoever uses it."""

    def deconstruct(self) -> Any:
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        try:
            return super().from_db_value(value, expression, connection)
        except (ValueError, RecursionError):
            return value


def _in_seconds(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value


class JobsManager(models.Manager[Row]):
    """Send every query to ``DJANGO_JOBS["DATABASE"]``, unless ``using()`` names another."""

    def get_queryset(self) -> models.QuerySet[Row]:
        # As Manager does it, but for the database: using() would make a second queryset, and this is the hot path.
        manager: Any = self
        queryset: models.QuerySet[Row] = manager._queryset_class(
            model=self.model, using=self._db or conf.database(), hints=manager._hints
        )
        return queryset


class JobsRouter:
    """Keep the jobs tables in ``DJANGO_JOBS["DATABASE"]``, and other tables as they are.

    Needed in ``DATABASE_ROUTERS`` only where that is not the default database.
    """

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        return conf.database() if model._meta.app_label == "django_jobs" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == conf.database() if app_label == "django_jobs" else None


def jobs_connection() -> BaseDatabaseWrapper:
    """Return this thread's connection to the jobs database."""
    return connections[conf.database()]


def limit_waiting(connection: BaseDatabaseWrapper) -> None:
    """Let this thread's connection give up on a host that does not answer, unless the project says when to.

    For threads that use it for nothing but jobs. A pool's connections are everybody's and stay as they are.
    """
    options = connection.settings_dict.get("OPTIONS", {})
    driver: Any = getattr(connection, "Database", None)
    if hasattr(driver, "ClientCursor") and not options.get("pool"):
        # The dict is shared with the other threads' connections.
        connection.settings_dict = {**connection.settings_dict, "OPTIONS": GIVE_UP | options}


@contextmanager
def exclusive() -> Iterator[None]:
    """Open a transaction on the jobs database in which a read followed by a write cannot fail for lack of a lock.

    Where rows cannot be locked (SQLite) the transaction takes the database's one write lock at its
    beginning, and waits for it as long as the connection's timeout allows; elsewhere this is ``atomic()``.
    """
    connection = jobs_connection()
    if connection.features.has_select_for_update or connection.in_atomic_block:
        with transaction.atomic(using=connection.alias):
            yield
        return
    # Connecting sets the mode anew.
    connection.ensure_connection()
    before = connection.transaction_mode  # type: ignore[attr-defined]
    connection.transaction_mode = "IMMEDIATE"  # type: ignore[attr-defined]
    try:
        with transaction.atomic(using=connection.alias):
            yield
    finally:
        connection.transaction_mode = before  # type: ignore[attr-defined]


def prepare_for_workers() -> None:
    """Bring a SQLite file into the mode in which readers and a writer do not wait for each other (WAL); it stays so."""
    connection = jobs_connection()
    is_in_memory: Any = getattr(connection, "is_in_memory_db", None)
    if is_in_memory is not None and not is_in_memory() and not connection.in_atomic_block:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode=WAL")


def lock_rows(rows: models.QuerySet[Row]) -> models.QuerySet[Row]:
    """Lock the rows for this transaction, and wait for whoever else has them locked.

    Where rows cannot be locked, the transaction of ``exclusive()`` already keeps other writers out.
    """
    return rows.select_for_update(**_lock_options(rows)) if _can_lock(rows) else rows


def lock_free_rows(rows: models.QuerySet[Row]) -> models.QuerySet[Row]:
    """Lock the rows that nobody else has locked, for this transaction, and leave the others out."""
    return rows.select_for_update(skip_locked=True, **_lock_options(rows)) if _can_lock(rows) else rows


def _can_lock(rows: models.QuerySet[Row]) -> bool:
    return connections[rows.db].features.has_select_for_update_skip_locked


def _lock_options(rows: models.QuerySet[Row]) -> dict[str, Any]:
    features = connections[rows.db].features
    return {
        "no_key": features.has_select_for_no_key_update,
        "of": ("self",) if features.has_select_for_update_of else (),
    }


def sees_commits(using: str) -> bool:
    """Say whether each statement of this transaction sees what others have committed by then.

    In PostgreSQL's REPEATABLE READ and SERIALIZABLE it sees what the first one saw, and to lock a row that has been changed
    since is an error. Where rows cannot be locked, the transaction of ``exclusive()`` already keeps other writers out.
    """
    connection = connections[using]
    if not connection.features.has_select_for_update_skip_locked:
        return True
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        return bool(cursor.fetchone()[0] == "read committed")


def try_lock_names(using: str, names: Sequence[str]) -> list[str]:
    """Lock names for this transaction, and return those that nobody else has locked: for rows that are not there yet.

    Where rows cannot be locked, the transaction of ``exclusive()`` already keeps other writers out.
    """
    connection = connections[using]
    if not names or not connection.features.has_select_for_update_skip_locked:
        return list(names)
    # Not a lock for each name: the server has room for some thousands, and a transaction may have more names.
    sql = "SELECT name FROM unnest(%s::text[]) AS name WHERE pg_try_advisory_xact_lock(1907, hashtext(name) & 1023)"
    with connection.cursor() as cursor:
        cursor.execute(sql, [list(names)])
        return [name for (name,) in cursor.fetchall()]


def take_ids(using: str, model: type[models.Model], count: int) -> list[int]:
    """Return so many ids that no row of the model has or will have, larger than all that were given out before."""
    connection = connections[using]
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.features.has_select_for_update_skip_locked:
            sql = "SELECT nextval(pg_get_serial_sequence(%s, 'id')) FROM generate_series(1, %s)"
            cursor.execute(sql, [connection.ops.quote_name(table), count])
            return sorted(number for (number,) in cursor.fetchall())
        # Where rows cannot be locked (SQLite) ids are counted in a row, and this transaction is the only one that writes.
        cursor.execute("UPDATE sqlite_sequence SET seq = seq + %s WHERE name = %s", [count, table])
        cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
        last = cursor.fetchone()[0]
        return list(range(last - count + 1, last + 1))


class Constant(models.Value):
    """One of our own words, written into the SQL.

    SQLite uses a partial index only for a list of states that it reads there: bound as parameters, it reads the whole table.
    """

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[()]]:
        return f"'{self.value}'", ()


def database_now(using: str) -> datetime:
    """Return the time by the database's clock, as it writes it into rows."""
    query = Query(None)
    query.add_annotation(Now(), "now")
    [[now]] = query.get_compiler(using=using).results_iter()
    return as_moment(now)


def as_moment(time: datetime) -> datetime:
    """Return a time as it was read, which is naive with ``USE_TZ = False``, as an aware one."""
    return timezone.make_aware(time) if timezone.is_naive(time) else time


def as_column(moment: datetime | None) -> datetime | None:
    """Return an aware time as the project's columns take it: naive with ``USE_TZ = False``."""
    return moment if moment is None or settings.USE_TZ else timezone.make_naive(moment)


def from_now(delay: timedelta | Combinable) -> ExpressionWrapper:
    """Return the database's now plus ``delay``, as an expression."""
    return ExpressionWrapper(Now() + delay, output_field=models.DateTimeField())


def has_come(using: str) -> Combinable:
    """Return the latest moment that has come by the database's clock, as an expression.

    SQLite's clock counts milliseconds, stored times count microseconds, and both are compared as text: without a
    step of the clock more, a time of this very millisecond would lie ahead.
    """
    digits = connections[using].features.time_cast_precision
    return Now() if digits >= 6 else from_now(timedelta(seconds=10**-digits))


def time_until(column: str) -> Case:
    """Return how long until the time in a column, as an expression; nothing once it has come.

    So no time is read that Python cannot hold, such as one before Christ. Leave out those after ``FOREVER``: infinity.
    """
    return Case(
        When(**{f"{column}__lte": Now()}, then=Value(timedelta())),
        default=F(column) - Now(),
        output_field=models.DurationField(),
    )
