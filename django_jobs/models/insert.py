"""How new jobs are written where the database takes whole sets of rows as JSON: one statement, no model instances.

The statements are made once from the fields of ``Job`` and run with Django's cursor. One job is an INSERT of VALUES;
many are two JSON documents, the calls and the tasks that they are of, which the database takes apart: 1,000 jobs are
two parameters. ``JobQuerySet.add``, the only caller, says in which state a job begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.apps import apps
from django.db import DatabaseError, IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import notifications
from ..options import OnConflict
from ..states import JobState
from .database import Row, from_now

# Jobs to a statement: more gain little. Bytes of arguments to a statement: well below what a document may have.
AT_ONCE, MOST_BYTES = 1000, 16 * 1024 * 1024


class Options(NamedTuple):
    """What the jobs of one task have in common, as it is stored; ``meta`` is JSON."""

    task_path: str
    queue_name: str
    priority: int
    max_attempts: int
    backend: str
    meta: str = "{}"
    concurrency_key: str = ""
    concurrency_limit: int | None = None
    timeout: float | None = None
    run_after: datetime | None = None
    delay: timedelta | None = None
    unique_for: timedelta | None = None

    @property
    def is_for_later(self) -> bool:
        return self.run_after is not None or self.delay is not None

    @property
    def hint(self) -> tuple[str, str]:
        """What to tell the workers: kind and name of the notification."""
        return (notifications.DUE, "") if self.is_for_later else (notifications.READY, self.queue_name)


class NewJob(NamedTuple):
    """A job to be written; its arguments are JSON already. ``on_conflict`` says what it becomes if its key is taken."""

    options: Options
    args: str
    kwargs: str
    unique_key: str | None = None
    on_conflict: OnConflict = "return"


class Added(NamedTuple):
    """The ids of new jobs, in their order, and when each was enqueued, by the database's clock."""

    ids: list[int]
    enqueued_at: list[datetime]


class _Statements(NamedTuple):
    """INSERTs for one job and for many, and the same for jobs with unique keys, which leave those out whose key is taken.

    ``defaults``, of the columns that nobody names, follow the values of one job and go before the documents of many.
    """

    one: str
    one_if_free: str
    many: str
    many_if_free: str
    defaults: list[Any]


FirstState = Callable[[Options], JobState]

# By the alias of the database.
_statements: dict[str, _Statements] = {}

# The columns, in the order of the parameters.
_OF_A_TASK = (
    "task_path", "queue_name", "priority", "max_attempts", "backend", "meta",
    "concurrency_key", "concurrency_limit", "timeout", "state",
)  # fmt: skip
_OF_A_CALL = ("args", "kwargs", "unique_key")
_NOTIFY = ", pg_notify(%s, %s)"
_FROM_NOW = "STATEMENT_TIMESTAMP() + make_interval(secs => {})"
_LATER = f"COALESCE({{}}, {_FROM_NOW})"


def can_insert_values(connection: BaseDatabaseWrapper) -> bool:
    """Say whether the database takes jsonb apart, and answers an INSERT: PostgreSQL by psycopg."""
    features: Any = connection.features
    return bool(features.has_native_json_field and features.can_return_rows_from_bulk_insert)


def as_row(model: type[Row], job: NewJob) -> Row:
    """Return the job as an unsaved row without a state, which waits from the database's now if at all."""
    values = job.options._asdict() | {"args": json.loads(job.args), "kwargs": json.loads(job.kwargs)}
    delay, unique_for = values.pop("delay"), values.pop("unique_for")
    if delay is not None:
        values["run_after"] = from_now(delay)
    if unique_for is not None:
        values["unique_until"] = from_now(unique_for)
    return model(**values | {"meta": json.loads(job.options.meta), "unique_key": job.unique_key})


def insert(
    connection: BaseDatabaseWrapper,
    jobs: Sequence[NewJob],
    first_state: FirstState,
    make_row: Callable[[NewJob], Any],
) -> Added:
    """Insert jobs in their order, the fastest way that the database has; a single one whose unique key is taken is left out."""
    if not can_insert_values(connection):
        return _save([make_row(job) for job in jobs], connection.alias)
    if len(jobs) == 1:
        return insert_one(connection, jobs[0], first_state(jobs[0].options))
    return insert_rows(connection, jobs, first_state)


def _save(rows: Sequence[Any], using: str) -> Added:
    if rows[0].unique_key is not None:
        try:
            with transaction.atomic(using=using):
                rows[0].save(force_insert=True, using=using)
        except IntegrityError:
            return Added([], [])
    elif len(rows) == 1:
        rows[0].save(force_insert=True, using=using)
    else:
        type(rows[0]).objects.using(using).bulk_create(rows, batch_size=1000)
    return Added([row.pk for row in rows], [row.enqueued_at for row in rows])


def complete(row: Any, job: NewJob, pk: int, enqueued_at: datetime, using: str) -> None:
    """Make the unsaved row of a job what the database has stored for it."""
    row.pk, row.enqueued_at = pk, enqueued_at
    if job.options.delay is not None:
        row.run_after = enqueued_at + job.options.delay
    if job.options.unique_for is not None:
        row.unique_until = enqueued_at + job.options.unique_for
    row._state.adding, row._state.db = False, using


def insert_with_hint(connection: BaseDatabaseWrapper, job: NewJob, state: JobState, kind: str, name: str) -> Added:
    """Insert one job and hint to the workers, with the same statement where that is its own transaction.

    Return nothing added if its unique key is taken.
    """
    companion = notifications.companion(connection, kind, name)
    if companion is not None:
        try:
            added = insert_one(connection, job, state, companion.payload)
        except DatabaseError as error:
            # A hint that cannot be sent harms nothing; and what the server has refused, it has not written.
            if not notifications.is_refusal(error):
                raise
        else:
            if added.ids:
                companion.was_sent()
            return added
    added = insert_one(connection, job, state)
    if added.ids:
        notifications.hint(kind, name)
    return added


def insert_one(connection: BaseDatabaseWrapper, job: NewJob, state: JobState, payload: str | None = None) -> Added:
    """Insert one job with one statement, which sends a notification along if ``payload`` is given."""
    statements = _statements_for(connection)
    *of_the_task, run_after, delay, unique_for = job.options
    later = (run_after, _seconds(delay), _seconds(unique_for))
    values = [*of_the_task, state.value, job.args, job.kwargs, job.unique_key, *later, *statements.defaults]
    statement = statements.one if job.unique_key is None else statements.one_if_free
    if payload is not None:
        statement, values = statement + _NOTIFY, [*values, notifications.CHANNEL, payload]
    with transaction.mark_for_rollback_on_error(using=connection.alias):
        row = _run(connection, statement, values)
    return Added([row[0]], [row[1]]) if row else Added([], [])


def insert_rows(connection: BaseDatabaseWrapper, jobs: Sequence[NewJob], first_state: FirstState) -> Added:
    """Insert jobs in their order, up to 1,000 to a statement. Call it in a transaction."""
    statements = _statements_for(connection)
    added = Added([], [])
    for portion in _portions(jobs):
        documents = _documents(jobs[portion], first_state)
        ids, enqueued_at = _run(connection, statements.many, [*statements.defaults, *documents])
        added.ids.extend(ids)
        added.enqueued_at.extend([enqueued_at] * len(ids))
    return added


def reserve_ids(connection: BaseDatabaseWrapper, count: int) -> list[int]:
    """Return ids that no other job will get, in ascending order."""
    meta: Any = apps.get_model("django_jobs", "Job")._meta
    sequence = [connection.ops.quote_name(meta.db_table), meta.pk.column]
    statement = "SELECT array_agg(nextval(pg_get_serial_sequence(%s, %s))) FROM generate_series(1, %s)"
    return sorted(_run(connection, statement, [*sequence, count])[0])


def insert_free_rows(
    connection: BaseDatabaseWrapper, jobs: Sequence[NewJob], ids: Sequence[int], first_state: FirstState
) -> Added:
    """Insert jobs with these ids, but for those whose unique key is taken; return what was inserted.

    Each waits for a transaction that has inserted its key and not ended yet: give the jobs in the order of their keys,
    so that two callers never wait for each other. Call it in a transaction.
    """
    statements = _statements_for(connection)
    added = Added([], [])
    for portion in _portions(jobs):
        documents = _documents(jobs[portion], first_state, ids[portion])
        inserted, enqueued_at = _run(connection, statements.many_if_free, [*statements.defaults, *documents])
        added.ids.extend(inserted or ())
        added.enqueued_at.extend([enqueued_at] * len(inserted or ()))
    return added


def _run(connection: BaseDatabaseWrapper, statement: str, values: Sequence[Any]) -> Sequence[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        row: Sequence[Any] = cursor.fetchone()
        return row


def _portions(jobs: Sequence[NewJob]) -> Iterator[slice]:
    begin = size = 0
    for place, job in enumerate(jobs):
        length = len(job.args) + len(job.kwargs)
        size += length
        if place - begin == AT_ONCE or (size > MOST_BYTES and place > begin):
            yield slice(begin, place)
            begin, size = place, length
    yield slice(begin, len(jobs))


def _documents(jobs: Sequence[NewJob], first_state: FirstState, ids: Sequence[int] = ()) -> tuple[str, str]:
    """Return the calls, ``[place of the task, args, kwargs]`` each, and the tasks, as JSON.

    A call with an id has also its unique key and the id.
    """
    places: dict[int, int] = {}
    tasks: list[dict[str, Any]] = []
    calls: list[str] = []
    for options, args, kwargs, _, _ in jobs:
        place = places.get(id(options))
        if place is None:
            place = places[id(options)] = len(tasks)
            tasks.append(_task_row(place, options, first_state(options)))
        calls.append(f"[{place},{args},{kwargs}]")
    if ids:
        calls = [
            f"{call[:-1]},{json.dumps(job.unique_key)},{pk}]" for call, job, pk in zip(calls, jobs, ids, strict=True)
        ]
    return f"[{','.join(calls)}]", json.dumps(tasks)


def _task_row(place: int, options: Options, state: JobState) -> dict[str, Any]:
    row = options._asdict() | {"place": place, "state": state.value, "meta": json.loads(options.meta)}
    if options.run_after is not None:
        row["run_after"] = options.run_after.isoformat()
    return row | {name: _seconds(getattr(options, name)) for name in ("delay", "unique_for")}


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _statements_for(connection: BaseDatabaseWrapper) -> _Statements:
    made = _statements.get(connection.alias)
    if made is None:
        made = _statements[connection.alias] = _make_statements(connection)
    return made


def _make_statements(connection: BaseDatabaseWrapper) -> _Statements:
    meta: Any = apps.get_model("django_jobs", "Job")._meta
    quote = connection.ops.quote_name
    given = (*_OF_A_TASK, *_OF_A_CALL, "run_after", "unique_until")
    fields = [meta.get_field(name) for name in given]
    others = _others(meta, given)
    columns = ", ".join(quote(field.column) for field in (*fields, *others))
    types = {field.name: field.db_type(connection) for field in fields}
    table, pk, enqueued_at = map(quote, (meta.db_table, meta.pk.column, meta.get_field("enqueued_at").column))
    values = f"INSERT INTO {table} ({columns}) VALUES ({_values(len(given) - 2, len(others))})"  # noqa: S608
    # In the order of the calls they get their ids, where they have none yet.
    rows = f"INSERT INTO {table} ({columns}) {_selection(types, _ARGUMENTS, len(others))}"
    keyed = f"INSERT INTO {table} ({columns}, {pk}) {_selection(types, _KEYED, len(others), _RESERVED)}"
    answer, unless_taken = f"RETURNING {pk} AS id, {enqueued_at} AS began", "ON CONFLICT DO NOTHING"
    collected = "SELECT array_agg(id ORDER BY id), min(began) FROM inserted"
    return _Statements(
        one=f"{values} {answer}",
        one_if_free=f"{values} {unless_taken} {answer}",
        many=f"WITH inserted AS ({rows} {answer}) {collected}",
        many_if_free=f"WITH inserted AS ({keyed} {unless_taken} {answer}) {collected}",
        defaults=[field.get_db_prep_save(field.get_default(), connection) for field in others],
    )


# The columns of a call, out of its JSON.
_ARGUMENTS = ("call.value -> 1", "call.value -> 2", "NULL")
_KEYED = ("call.value -> 1", "call.value -> 2", "call.value ->> 3")
_RESERVED = ("(call.value ->> 4)::bigint",)


def _values(given: int, others: int) -> str:
    return ", ".join([*["%s"] * given, _LATER.format("%s", "%s"), _FROM_NOW.format("%s"), *["%s"] * others])


def _selection(types: Mapping[str, str], of_a_call: Sequence[str], others: int, last: Sequence[str] = ()) -> str:
    """Return the query of the rows to insert. Its parameters are the defaults of the other columns, the calls, the tasks."""
    picked = [f"task.{name}" for name in _OF_A_TASK] + [*of_a_call, _LATER.format("task.run_after", "task.delay")]
    picked += [_FROM_NOW.format("task.unique_for"), *["%s"] * others, *last]
    of_a_task = ", ".join(f"{name} {types[name]}" for name in (*_OF_A_TASK, "run_after"))
    return (
        f"SELECT {', '.join(picked)} FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS call (value, number) "  # noqa: S608
        f"JOIN jsonb_to_recordset(%s::jsonb) AS task (place integer, {of_a_task}, delay double precision, unique_for double precision) "
        "ON task.place = (call.value ->> 0)::integer ORDER BY call.number"
    )


def _others(meta: Any, given: Sequence[str]) -> list[Any]:
    """Return the fields that a new row cannot do without besides these: their defaults are Django's, not the database's."""
    fields = [field for field in meta.local_concrete_fields if field.name not in given and not field.primary_key]
    return [field for field in fields if not field.has_db_default() and field.get_default() is not None]
