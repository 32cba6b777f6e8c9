"""From a task's ``concurrency_key`` and ``concurrency_limit`` to those of one job: called with its arguments, and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .compat import DjangoTask
from .exceptions import InvalidArgument
from .models.insert import Options
from .options import is_key, is_limit
from .task import Task, path_of


def fixed_slot(task: DjangoTask) -> dict[str, Any]:
    """Return the options that say which slot all jobs of a task need; nothing if it takes none, or that of each job."""
    if not isinstance(task, Task) or not task.concurrency_key or _is_of_call(task):
        return {}
    return {"concurrency_key": task.concurrency_key, "concurrency_limit": task.concurrency_limit}


def with_slot(options: Options, task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Options:
    """Return the options with the key and limit of a job with these arguments. Raise InvalidArgument for bad ones.

    The very same options where the task has no limit, or one that is the same for all its jobs.
    """
    if not isinstance(task, Task) or not _is_of_call(task):
        return options
    key = _of_call(task, "concurrency_key", args, kwargs)
    if key is None or key == "":
        return options._replace(concurrency_key="", concurrency_limit=None)
    if not is_key(key):
        raise InvalidArgument(
            f"concurrency_key of {path_of(task)} must be a text of up to 255 characters, not {key!r}."
        )
    limit = _of_call(task, "concurrency_limit", args, kwargs)
    if not is_limit(limit):
        raise InvalidArgument(f"concurrency_limit of {path_of(task)} must be a whole number from 1 on, not {limit!r}.")
    return options._replace(concurrency_key=key, concurrency_limit=limit)


def _is_of_call(task: Task) -> bool:
    return callable(task.concurrency_key) or callable(task.concurrency_limit)


def _of_call(task: Task, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    value = getattr(task, name)
    if not callable(value):
        return value
    try:
        return value(*args, **kwargs)
    except TypeError as error:
        raise InvalidArgument(
            f"{name} of {path_of(task)} cannot be made of the arguments {args!r} and {kwargs!r}: {error}. "
            "It is called with the arguments of the job, as the task is."
        ) from error
