"""From a call of a task to a row: validation, one INSERT in the caller's transaction, signals.

Nothing is written before every argument of every call has been checked. The hint to the workers follows the
commit. ``backend.py`` is the usual way in; ``enqueue`` here also takes the path of a declared task.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import Model

from . import conf, signals
from .compat import DjangoTask, normalize_json
from .exceptions import InvalidArgument
from .models import Job
from .models.database import from_now, jobs_connection
from .task import Task, find_task, path_of

# How deeply lists and dicts may be nested: well within what can be copied and read back anywhere.
DEEPEST = 100


def enqueue(
    task: DjangoTask | str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **using: Any
) -> Any:
    """Enqueue a declared task, given by itself or by its path; return its TaskResult.

    ``using`` are the options of ``Task.using()``. Raise UnknownTask for a path that is not declared.
    """
    found = find_task(task) if isinstance(task, str) else task
    return (found.using(**using) if using else found).enqueue(*args, **(kwargs or {}))


class Inserted(NamedTuple):
    """A job, and whether this call made it: else it is the unfinished one that had the unique key before."""

    job: Job
    is_new: bool


def insert(task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any], backend: str) -> Inserted:
    """Insert one job, unless an unfinished job has its unique key."""
    job = new_job(task, args, kwargs, backend)
    inserted = _insert([job])
    _finish(inserted, [task])
    return inserted[0]


def insert_many(calls: Iterable[tuple[DjangoTask, Sequence[Any], Mapping[str, Any]]], backend: str) -> list[Inserted]:
    """Insert one job per call, 1,000 to an INSERT, and return them in order. All or nothing."""
    calls = list(calls)
    jobs = [new_job(task, args, kwargs, backend) for task, args, kwargs in calls]
    with transaction.atomic(using=jobs_connection().alias):
        inserted = _insert(jobs)
    _finish(inserted, [task for task, _, _ in calls])
    return inserted


def new_job(task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any], backend: str) -> Job:
    """Return an unsaved job. Raise InvalidArgument, naming the argument, for what cannot be stored."""
    stored_args, stored_kwargs = clean_arguments(task, args, kwargs)
    ours = task if isinstance(task, Task) else None
    delay = ours.delay if ours else None
    return Job(
        task_path=path_of(task),
        queue_name=task.queue_name,
        priority=int(task.priority),
        args=stored_args,
        kwargs=stored_kwargs,
        run_after=from_now(delay) if delay is not None else task.run_after,
        max_attempts=ours.max_attempts if ours else conf.read("MAX_ATTEMPTS"),
        unique_key=ours.unique_key if ours else None,
        meta=clean_json(dict(ours.meta), "meta") if ours and ours.meta else {},
        backend=backend,
    )


def clean_arguments(
    task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments as JSON holds them. Raise InvalidArgument naming the first that it cannot hold."""
    names = _parameter_names(task)
    stored_args = [
        clean_json(value, f"argument {position + 1}" + (f" ({names[position]!r})" if position < len(names) else ""))
        for position, value in enumerate(args)
    ]
    stored_kwargs = {
        clean_json(name, f"the name {name!r} of an argument"): clean_json(value, f"argument {name!r}")
        for name, value in kwargs.items()
    }
    limit = conf.read("MAX_ARGUMENT_BYTES")
    sizes = {name: len(json.dumps(value)) for name, value in stored_kwargs.items()}
    sizes |= {str(position + 1): len(json.dumps(value)) for position, value in enumerate(stored_args)}
    if sum(sizes.values()) > limit:
        largest = max(sizes, key=lambda name: sizes[name])
        raise InvalidArgument(
            f"The arguments of {path_of(task)} take {sum(sizes.values()):,} bytes as JSON, more than "
            f"MAX_ARGUMENT_BYTES ({limit:,}). The largest is argument {largest} ({sizes[largest]:,} bytes). "
            "Store the data elsewhere and pass its key."
        )
    return stored_args, stored_kwargs


def clean_json(value: Any, what: str) -> Any:
    """Return ``value`` as every database's JSON holds it, or raise InvalidArgument saying what ``what`` contains."""
    try:
        cleaned = normalize_json(value)
        _refuse_unstorable(cleaned, DEEPEST)
    except (TypeError, ValueError, RecursionError) as error:
        hint = "Pass its primary key and load it in the task." if isinstance(value, Model) else "Pass what JSON holds."
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InvalidArgument(f"{what} cannot be stored as JSON: {reason}. {hint}") from error
    return cleaned


def _refuse_unstorable(value: Any, depth: int) -> None:
    """Raise ValueError for what Python's JSON writes and PostgreSQL's jsonb, or a reader of it, refuses."""
    if not depth:
        raise RecursionError
    match value:
        case str():
            if "\x00" in value:
                raise ValueError("it contains a NUL character")
            if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
                raise ValueError("it contains a lone surrogate")
        case int():
            # Python refuses to write, and to read, a number of more than 4,300 digits.
            str(value)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{value} is not a JSON number")
        case list():
            for item in value:
                _refuse_unstorable(item, depth - 1)
        case dict():
            for key, item in value.items():
                _refuse_unstorable(key, depth - 1)
                _refuse_unstorable(item, depth - 1)


def _parameter_names(task: DjangoTask) -> list[str]:
    try:
        parameters = list(inspect.signature(task.func).parameters)
    except (TypeError, ValueError):
        return []
    return parameters[1:] if task.takes_context else parameters


def _insert(jobs: Sequence[Job]) -> list[Inserted]:
    """Insert the jobs in their order, which is the order in which they run."""
    inserted: list[Inserted] = []
    for is_plain, group in groupby(jobs, key=lambda job: job.unique_key is None):
        if is_plain:
            plain = list(group)
            Job.objects.add(plain)
            inserted += [Inserted(job, True) for job in plain]
        else:
            inserted += [_insert_unique(job) for job in group]
    return inserted


def _insert_unique(job: Job) -> Inserted:
    # A few rounds: the unfinished job may end between the refused INSERT and the look for it.
    for _ in range(5):
        try:
            with transaction.atomic(using=jobs_connection().alias):
                Job.objects.add([job])
        except IntegrityError:
            existing = Job.objects.unfinished().filter(unique_key=job.unique_key).first()
            if existing is not None:
                return Inserted(existing, False)
        else:
            return Inserted(job, True)
    raise InvalidArgument(f"The unique key {job.unique_key!r} is contended; enqueue the job again.")


def _finish(inserted: Sequence[Inserted], tasks: Sequence[DjangoTask]) -> None:
    """Give the new jobs the times that the database gave them, and tell the receivers."""
    for (job, is_new), task in zip(inserted, tasks, strict=True):
        if not is_new:
            continue
        delay = task.delay if isinstance(task, Task) else None
        if delay is not None and job.enqueued_at is not None:
            job.run_after = job.enqueued_at + delay
        signals.send(signals.job_enqueued, Job, job=job)
