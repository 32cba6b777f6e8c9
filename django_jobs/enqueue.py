"""From a call of a task to a row: validation, one INSERT in the caller's transaction, signals.

Nothing is written before every argument of every call has been checked. The hint to the workers follows the
commit. ``backend.py`` is the usual way in; ``enqueue`` here also takes the path of a declared task.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction

from . import conf, signals
from .arguments import DEEPEST, clean_arguments, clean_json
from .compat import DjangoTask
from .models import Job
from .models.database import exclusive, jobs_connection
from .models.insert import NewJob, Options
from .models.unique import add_unique
from .slots import fixed_slot, with_slot
from .task import Task, find_task, path_of
from .unique import has_key, key_of

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

    ``others`` are the jobs, by place, that have the unique key: there nothing was inserted.
    """

    jobs: Sequence[NewJob]
    ids: list[int] = field(default_factory=list)
    enqueued_at: list[datetime] = field(default_factory=list)
    others: dict[int, Job] = field(default_factory=dict)


def insert(task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any], backend: str) -> Inserted:
    """Insert one job, unless another has its unique key. Raise DuplicateJob then, if the task says so."""
    options = with_slot(_options(task, backend), task, args, kwargs)
    job = NewJob(options, *encode_arguments(task, args, kwargs, conf.read("MAX_ARGUMENT_BYTES")))
    if not _may_be_unique(task):
        return _announce(Inserted([job], *Job.objects.add([job])))
    return _announce(_insert_some_unique([_with_key(task, job, _unique_options(task, options))]))


def insert_many(calls: Iterable[tuple[DjangoTask, Sequence[Any], Mapping[str, Any]]], backend: str) -> Inserted:
    """Insert one job per call, 1,000 to an INSERT, in their order, but where another has the unique key. All or nothing."""
    calls = list(calls)
    jobs = _jobs_of(calls, backend)
    if not jobs:
        return Inserted(jobs)
    if any(job.unique_key is not None for job in jobs):
        with exclusive():
            inserted = _insert_some_unique(jobs)
        return _announce(inserted)
    with transaction.atomic(using=jobs_connection().alias):
        inserted = Inserted(jobs, *Job.objects.add(jobs))
    return _announce(inserted)


def _jobs_of(calls: Sequence[tuple[DjangoTask, Sequence[Any], Mapping[str, Any]]], backend: str) -> list[NewJob]:
    tasks = {id(task): task for task, _, _ in calls}
    options = {number: _options(task, backend) for number, task in tasks.items()}
    limit = conf.read("MAX_ARGUMENT_BYTES")
    jobs = [
        NewJob(with_slot(options[id(task)], task, args, kwargs), *encode_arguments(task, args, kwargs, limit))
        for task, args, kwargs in calls
    ]
    if not any(_may_be_unique(task) for task in tasks.values()):
        return jobs
    # The same options for all jobs that had the same before.
    unique: dict[int, Options] = {}
    for place, ((task, _, _), job) in enumerate(zip(calls, jobs, strict=True)):
        if _may_be_unique(task):
            ours = unique.setdefault(id(job.options), _unique_options(task, job.options))
            jobs[place] = _with_key(task, job, ours)
    return jobs


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
        timeout=ours.timeout if ours else None,
        **fixed_slot(task),
    )


def _may_be_unique(task: DjangoTask) -> bool:
    return isinstance(task, Task) and has_key(task)


def _unique_options(task: DjangoTask, options: Options) -> Options:
    """Return what the jobs of a task that have a unique key have in common."""
    period = task.unique_for if isinstance(task, Task) else None
    if isinstance(task, Task) and task.on_conflict == "replace" and not options.is_for_later:
        # The last call wins: the job runs when none has come for so long, and its key is free when it has ended.
        return options._replace(delay=period)
    return options._replace(unique_for=period)


def _with_key(task: DjangoTask, job: NewJob, options: Options) -> NewJob:
    """Return the job with its unique key and the options of such jobs; as it is if this call has no key."""
    assert isinstance(task, Task)
    key = key_of(task, json.loads(job.args), json.loads(job.kwargs))
    return job if key is None else job._replace(options=options, unique_key=key, on_conflict=task.on_conflict)


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


def _insert_some_unique(jobs: Sequence[NewJob]) -> Inserted:
    calls = add_unique(Job.objects.all(), jobs)
    others = {place: call.holder for place, call in enumerate(calls) if call.holder is not None}
    return Inserted(jobs, [call.pk for call in calls], [call.enqueued_at for call in calls if call.enqueued_at], others)


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
