"""Who has a unique key: the insertion of jobs with keys, and what becomes of a call whose key is taken.

The partial unique index decides, whatever the sessions do at once: a job has its key while it is unfinished, and after
that as long as it has a ``unique_until``. An INSERT leaves out the rows whose keys are taken, and waits for one that
is not committed yet. Then the holders of those keys are looked for. One that has ended and whose time has come loses
its ``unique_until``, and the INSERT is tried again; the others are what the calls become.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, OperationalError, connections, transaction
from django.db.models import BooleanField, Case, ExpressionWrapper, F, Q, Value, When
from django.db.models.functions import Cast, Now

from ..exceptions import DuplicateJob, UnknownTask
from ..states import FINISHED, UNFINISHED, UNSTARTED
from ..task import find_task, path_of
from .database import Constant, exclusive, from_now, lock_rows
from .insert import AT_ONCE, NewJob, Options, can_insert_values, reserve_ids

if TYPE_CHECKING:
    from .job import Job
    from .job_queryset import JobQuerySet

# How often a key may be freed by one and taken by another between two looks at it: each time somebody else gets ahead.
MOST_ROUNDS = 100


# Each row goes through a CASE with so many branches.
REPLACED_AT_ONCE = 100


@dataclass(slots=True)
class Call:
    """A job to be written and what became of it: a new row, or the ``holder`` that had its key before."""

    job: NewJob
    pk: int = 0
    enqueued_at: datetime | None = None
    holder: Job | None = None

    def is_settled(self) -> bool:
        return self.enqueued_at is not None

    def is_new(self) -> bool:
        return self.is_settled() and self.holder is None

    def become(self, pk: int, enqueued_at: datetime, holder: Job | None = None) -> None:
        self.pk, self.enqueued_at, self.holder = pk, enqueued_at, holder


Insert = Callable[[Sequence[Call]], None]


def add_unique(jobs: JobQuerySet, new: Sequence[NewJob]) -> list[Call]:
    """Insert jobs, of which some have a unique key, in their order; say what became of each.

    Several are written in one transaction, which the caller has opened with ``exclusive()``. Raise DuplicateJob for the
    first whose key is taken and that says so.
    """
    calls = [Call(job) for job in new]
    if not can_insert_values(connections[jobs.db]):
        with exclusive():
            _add_in_order(jobs, calls)
    elif len(calls) == 1:
        _settle(jobs, calls, lambda each: _insert_one(jobs, each), calls)
    else:
        for call, pk in zip(calls, reserve_ids(connections[jobs.db], len(calls)), strict=True):
            call.pk = pk
        _settle(jobs, calls, lambda each: _insert_many(jobs, each), calls)
    return calls


def _add_in_order(jobs: JobQuerySet, calls: Sequence[Call]) -> None:
    """Insert jobs where the database gives ids only as rows are inserted: those with keys one by one."""
    for is_plain, group in groupby(calls, key=lambda call: call.job.unique_key is None):
        if is_plain:
            plain = list(group)
            added = jobs.add([call.job for call in plain])
            for call, pk, enqueued_at in zip(plain, added.ids, added.enqueued_at, strict=True):
                call.become(pk, enqueued_at)
        else:
            for call in group:
                _settle(jobs, [call], lambda each: _insert_one(jobs, each), calls)


def _settle(jobs: JobQuerySet, calls: Sequence[Call], insert: Insert, together: Sequence[Call]) -> None:
    pending = calls
    for _ in range(MOST_ROUNDS):
        insert(_first_of_each_key(pending))
        pending = [call for call in pending if not call.is_settled()]
        for begin in range(0, len(pending), AT_ONCE):
            _meet_holders(jobs, pending[begin : begin + AT_ONCE], together)
        pending = [call for call in pending if not call.is_settled()]
        if not pending:
            return
    raise OperationalError(f"The unique key {pending[0].job.unique_key!r} changes hands all the time; enqueue again.")


def _first_of_each_key(calls: Iterable[Call]) -> list[Call]:
    keys: set[str] = set()
    first = []
    for call in calls:
        key = call.job.unique_key
        if key is None or key not in keys:
            first.append(call)
        if key is not None:
            keys.add(key)
    return first


def _insert_one(jobs: JobQuerySet, calls: Sequence[Call]) -> None:
    (call,) = calls
    added = jobs.add([call.job])
    if added.ids:
        call.become(added.ids[0], added.enqueued_at[0])


def _insert_many(jobs: JobQuerySet, calls: Sequence[Call]) -> None:
    ordered = sorted(calls, key=lambda call: call.job.unique_key or "")
    added = jobs.add_if_free([call.job for call in ordered], [call.pk for call in ordered])
    times = dict(zip(added.ids, added.enqueued_at, strict=True))
    for call in ordered:
        if call.pk in times:
            call.become(call.pk, times[call.pk])


def _meet_holders(jobs: JobQuerySet, calls: Sequence[Call], together: Sequence[Call]) -> None:
    """Settle the calls whose keys somebody has, and free the keys whose time has come."""
    rows = _whole(holders(jobs, {str(call.job.unique_key) for call in calls}))
    found = {row.unique_key: row for row in rows}
    expired = {key for key, row in found.items() if row.is_expired}
    held = [call for call in calls if call.job.unique_key in found.keys() - expired]
    for call in held:
        if call.job.on_conflict == "raise":
            raise _duplicate(found[call.job.unique_key], call.job, together)
    if expired:
        free_expired(jobs, expired)
    wanted = {row.pk: call.job for call in held if _is_replaceable(row := found[call.job.unique_key], call.job)}
    replaced = _replace(jobs, wanted) if wanted else {}
    for call in held:
        row = found[call.job.unique_key]
        now = replaced.get(row.pk) if row.pk in wanted else row
        # Else a worker has begun it, or it has ended, since it was found: look again.
        if now is not None:
            call.become(now.pk, now.enqueued_at, now)


def _duplicate(row: Job, job: NewJob, together: Sequence[Call]) -> DuplicateJob:
    # A job of these calls is gone with the error.
    is_one_of_them = any(call.is_new() and call.pk == row.pk for call in together)
    return DuplicateJob(job.options.task_path, str(row.unique_key), None if is_one_of_them else str(row.pk))


def _is_replaceable(row: Job, job: NewJob) -> bool:
    return job.on_conflict == "replace" and row.state in UNSTARTED and _task_of(row) == job.options.task_path


def _task_of(row: Job) -> str:
    """Return the name that the row's task has today: it may have been enqueued under an older one."""
    try:
        return path_of(find_task(row.task_path))
    except UnknownTask:
        return row.task_path


def _replace(jobs: JobQuerySet, wanted: Mapping[int, NewJob]) -> dict[int, Job]:
    """Replace those of these jobs that have not started by now; return them as they are then."""
    with exclusive():
        # In the order of their keys, so that two callers never wait for each other.
        unstarted = lock_rows(jobs.filter(pk__in=wanted, state__in=UNSTARTED).order_by("unique_key"))
        calls = {pk: wanted[pk] for pk in unstarted.values_list("pk", flat=True)}
        for options, portion in _portions(calls):
            jobs.replace(options, portion)
        return {row.pk: row for row in _whole(jobs.filter(pk__in=calls))}


def _portions(calls: Mapping[int, NewJob]) -> Iterator[tuple[Options, dict[int, NewJob]]]:
    """Yield the calls by their options, a few at a time."""
    for options in {id(job.options): job.options for job in calls.values()}.values():
        ids = [pk for pk, job in calls.items() if job.options is options]
        for begin in range(0, len(ids), REPLACED_AT_ONCE):
            yield options, {pk: calls[pk] for pk in ids[begin : begin + REPLACED_AT_ONCE]}


def _whole(jobs: JobQuerySet) -> Iterable[Any]:
    """Read the rows with all that their results need."""
    return jobs.select_related("result").prefetch_related("attempts")


def replacement(options: Options) -> dict[str, Any]:
    """Return the columns, but state and arguments, of a job that gets the options of a new call."""
    changes = {
        "run_after": options.run_after if options.delay is None else from_now(options.delay),
        "priority": options.priority,
        "raised": 0,
        "meta": json.loads(options.meta),
        # As many attempts as the new call has, whatever the old one has used.
        "max_attempts": F("attempt") + options.max_attempts,
        "timeout": options.timeout,
        "concurrency_key": options.concurrency_key,
        "concurrency_limit": options.concurrency_limit,
    }
    if options.unique_for is not None:
        changes["unique_until"] = from_now(options.unique_for)
    return changes


def arguments(jobs: JobQuerySet, calls: Mapping[int, NewJob]) -> dict[str, Any]:
    """Return the columns with the arguments of each of these calls, by id."""
    features: Any = connections[jobs.db].features
    columns: dict[str, Any] = {}
    for name in ("args", "kwargs"):
        field: Any = jobs.model._meta.get_field(name)
        values = (When(pk=pk, then=Value(json.loads(getattr(job, name)), field)) for pk, job in calls.items())
        case = Case(*values, output_field=field)
        columns[name] = Cast(case, field) if features.requires_casted_case_in_updates else case
    return columns


# The holders of keys


def holders(jobs: JobQuerySet, keys: Collection[str]) -> JobQuerySet:
    """Return the jobs that have these keys, with ``is_expired``: it has ended, and its time has come."""
    # As the index says it, word for word, or SQLite would not use it.
    has_it = Q(state__in=[Constant(state.value) for state in UNFINISHED]) | Q(unique_until__isnull=False)
    is_expired = ExpressionWrapper(_EXPIRED, output_field=BooleanField())
    return jobs.filter(has_it, unique_key__in=keys).annotate(is_expired=is_expired)


def free_expired(jobs: JobQuerySet, keys: Collection[str]) -> int:
    """Take these keys from jobs that have ended and whose time has come; return from how many."""
    with exclusive():
        # In the order of their keys, so that two callers never wait for each other.
        expired = lock_rows(holders(jobs, keys).filter(_EXPIRED).order_by("unique_key"))
        ids = list(expired.values_list("pk", flat=True))
        return jobs.filter(_EXPIRED, pk__in=ids).update(unique_until=None) if ids else 0


_EXPIRED = Q(state__in=FINISHED, unique_until__lte=Now())


# Requeueing


def requeue_keyed(finished: JobQuerySet, requeue: Callable[[JobQuerySet], int]) -> int:
    """Requeue those of these jobs whose keys nobody else has, one of each key; return how many."""
    keyed = [(pk, str(key)) for pk, key in finished.order_by("pk").values_list("pk", "unique_key")]
    moved = 0
    for begin in range(0, len(keyed), AT_ONCE):
        ids = _requeueable(finished.model.objects.using(finished.db), keyed[begin : begin + AT_ONCE])
        moved += _requeue_as_far_as_possible(finished, ids, requeue)
    return moved


def _requeueable(jobs: JobQuerySet, finished: Sequence[tuple[int, str]]) -> list[int]:
    """Return which of these finished jobs, ids and keys, may run again: of each key the one that has it still, or the first."""
    keys = {key for _, key in finished}
    free_expired(jobs, keys)
    chosen = dict(holders(jobs, keys).values_list("unique_key", "pk"))
    for pk, key in finished:
        chosen.setdefault(key, pk)
    return [pk for pk, key in finished if chosen[key] == pk]


def _requeue_as_far_as_possible(
    finished: JobQuerySet, ids: Sequence[int], requeue: Callable[[JobQuerySet], int]
) -> int:
    try:
        with transaction.atomic(using=finished.db):
            return requeue(finished.filter(pk__in=ids))
    except IntegrityError:
        # Somebody has taken one of the keys since: the others go one by one.
        return sum(_requeue_as_far_as_possible(finished, [pk], requeue) for pk in ids) if len(ids) > 1 else 0
