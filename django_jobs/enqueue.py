"""From a call of a task to a row: validation, one INSERT in the caller's transaction, signals.

Nothing is written before every argument of every call has been checked. The hint to the workers follows the
commit. ``backend.py`` is the usual way in; ``enqueue`` here also takes the path of a declared task.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Model

from . import conf, signals
from .compat import DjangoTask, normalize_json
from .exceptions import InvalidArgument
from .models import Job
from .models.database import jobs_connection
from .models.insert import NewJob, Options
from .slots import fixed_slot, with_slot
from .task import Task, find_task, path_of

# How deeply lists and dicts may be nested: well within what can be copied and read back anywhere.
DEEPEST = 100

_encode = json.JSONEncoder(allow_nan=False).encode
# A NUL, or half of what may be a pair of surrogates, as JSON writes them; also a text that only looks like one.
_SUSPECT = re.compile(r"\\u(?:0000|d[89a-f])")


def enqueue(
    task: DjangoTask | str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **using: Any
) -> Any:
    """Enqueue a declared task, given by itself or by its path; return its TaskResult.

    ``using`` are the options of ``Task.using()``. Raise UnknownTask for a path that is not declared.
    """
    found = find_task(task) if isinstance(task, str) else task
    return (found.using(**using) if using else found).enqueue(*args, **(kwargs or {}))


@dataclass(frozen=True, slots=True)
class Inserted:
    """What became of new jobs: an id and a time for each, in order.

    ``others`` are the unfinished jobs, by place, that had the unique key before: there nothing was inserted.
    """

    jobs: Sequence[NewJob]
    ids: list[int] = field(default_factory=list)
    enqueued_at: list[datetime] = field(default_factory=list)
    others: dict[int, Job] = field(default_factory=dict)


def insert(task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any], backend: str) -> Inserted:
    """Insert one job, unless an unfinished job has its unique key."""
    options = with_slot(_options(task, backend), task, args, kwargs)
    job = NewJob(options, *encode_arguments(task, args, kwargs, conf.read("MAX_ARGUMENT_BYTES")))
    return _announce(_insert([job]))


def insert_many(calls: Iterable[tuple[DjangoTask, Sequence[Any], Mapping[str, Any]]], backend: str) -> Inserted:
    """Insert one job per call, 1,000 to an INSERT, in their order. All or nothing."""
    calls = list(calls)
    options = {id(task): _options(task, backend) for task in {id(task): task for task, _, _ in calls}.values()}
    limit = conf.read("MAX_ARGUMENT_BYTES")
    jobs = [
        NewJob(with_slot(options[id(task)], task, args, kwargs), *encode_arguments(task, args, kwargs, limit))
        for task, args, kwargs in calls
    ]
    if not jobs:
        return Inserted(jobs)
    with transaction.atomic(using=jobs_connection().alias):
        inserted = _insert(jobs)
    return _announce(inserted)


def _options(task: DjangoTask, backend: str) -> Options:
    ours = task if isinstance(task, Task) else None
    return Options(
        task_path=path_of(task),
        # A member of an enumeration is stored as its text.
        queue_name=str.__str__(task.queue_name),
        priority=int(task.priority),
        max_attempts=ours.max_attempts if ours else conf.read("MAX_ATTEMPTS"),
        backend=backend,
        meta=json.dumps(clean_json(dict(ours.meta), "meta")) if ours and ours.meta else "{}",
        run_after=task.run_after,
        delay=ours.delay if ours else None,
        unique_key=ours.unique_key if ours else None,
        **fixed_slot(task),
    )


def encode_arguments(task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any], limit: int) -> tuple[str, str]:
    """Return the arguments as JSON. Raise InvalidArgument as ``clean_arguments()``, which decides whatever is unusual."""
    if type(args) in (tuple, list) and type(kwargs) is dict:
        try:
            encoded = _encode(args), _encode(kwargs) if kwargs else "{}"
        except (TypeError, ValueError, RecursionError):
            pass
        else:
            if len(encoded[0]) + len(encoded[1]) <= limit and not _is_unusual(*encoded):
                return encoded
    stored_args, stored_kwargs = clean_arguments(task, args, kwargs)
    return json.dumps(stored_args), json.dumps(stored_kwargs)


def _is_unusual(args: str, kwargs: str) -> bool:
    """Say whether the JSON might be nested too deeply or hold a NUL or half a character."""
    text = args + kwargs
    return text.count("[") + text.count("{") > DEEPEST or ("\\u" in text and _SUSPECT.search(text) is not None)


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


def _insert(jobs: Sequence[NewJob]) -> Inserted:
    """Insert the jobs in their order, which is the order in which they run."""
    if len(jobs) == 1 and jobs[0].options.unique_key is None:
        return Inserted(jobs, *Job.objects.add(jobs))
    inserted = Inserted(jobs)
    for is_plain, group in groupby(jobs, key=lambda job: job.options.unique_key is None):
        if is_plain:
            ids, enqueued_at = Job.objects.add(list(group))
            inserted.ids.extend(ids)
            inserted.enqueued_at.extend(enqueued_at)
        else:
            for job in group:
                _insert_unique(job, inserted)
    return inserted


def _insert_unique(job: NewJob, inserted: Inserted) -> None:
    # A few rounds: the unfinished job may end between the refused INSERT and the look for it.
    for _ in range(5):
        try:
            with transaction.atomic(using=jobs_connection().alias):
                added = Job.objects.add([job])
        except IntegrityError:
            existing = Job.objects.unfinished().filter(unique_key=job.options.unique_key).first()
            if existing is not None:
                inserted.others[len(inserted.ids)] = existing
                inserted.ids.append(existing.pk)
                inserted.enqueued_at.append(existing.enqueued_at)
                return
        else:
            inserted.ids.extend(added.ids)
            inserted.enqueued_at.extend(added.enqueued_at)
            return
    raise InvalidArgument(f"The unique key {job.options.unique_key!r} is contended; enqueue the job again.")


def _announce(inserted: Inserted) -> Inserted:
    """Tell the receivers, if any, of the new jobs."""
    if signals.is_heard(signals.job_enqueued):
        for place, (job, pk, enqueued_at) in enumerate(
            zip(inserted.jobs, inserted.ids, inserted.enqueued_at, strict=True)
        ):
            if place not in inserted.others:
                row = Job.objects.all().as_added(job, pk, enqueued_at)
                signals.send(signals.job_enqueued, Job, job=row)
    return inserted
