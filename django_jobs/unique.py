"""The unique keys of jobs: how one is made of a task and the arguments of a call, and what ``@task`` may say of it.

A made key begins with the task's path, so that no two tasks ever share one; a key that ``using(unique_key=...)`` gives
is taken as it is, by jobs of whatever tasks. Pure: which job has a key is the database's to decide
(``models/unique.py``).
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .compat import InvalidTask, normalize_json
from .exceptions import InvalidArgument
from .options import LONGEST_KEY, is_name
from .retries import to_seconds

if TYPE_CHECKING:
    from .task import Task

ON_CONFLICT = ("return", "raise", "replace")

# Of a path, where the whole key would be too long; the digest has 64.
_LONGEST_PATH = LONGEST_KEY - 65


def check_unique(task: Task) -> None:
    """Bring ``unique`` and ``unique_for`` into their stored form, or raise InvalidTask naming what cannot work."""

    def refuse(problem: str) -> InvalidTask:
        return InvalidTask(f"Task {task.module_path}: {problem}")

    if task.on_conflict not in ON_CONFLICT:
        raise refuse(f"on_conflict is one of {', '.join(map(repr, ON_CONFLICT))}, not {task.on_conflict!r}.")
    if task.unique_for is not None:
        object.__setattr__(task, "unique_for", _period(task.unique_for, refuse))
    if task.unique is None or isinstance(task.unique, bool):
        object.__setattr__(task, "unique", bool(task.unique))
    elif callable(task.unique):
        if inspect.iscoroutinefunction(task.unique):
            raise refuse(f"unique must be a plain function, and {task.unique!r} is async def.")
    else:
        object.__setattr__(task, "unique", _names(task, refuse))


def _period(given: Any, refuse: Callable[[str], InvalidTask]) -> timedelta:
    try:
        seconds = to_seconds(given)
    except ValueError as error:
        raise refuse(f"unique_for: {error}") from error
    if not seconds:
        raise refuse("unique_for must be more than 0 seconds. Leave it out for a key that is free when the job ends.")
    return timedelta(seconds=seconds)


def _names(task: Task, refuse: Callable[[str], InvalidTask]) -> tuple[str, ...]:
    given: Any = task.unique
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise refuse(f"unique is True, names of arguments or a callable, not {given!r}.")
    if not names:
        raise refuse(
            "unique names no argument. For one job at a time whatever its arguments write "
            "unique=lambda *args, **kwargs: 'one'."
        )
    parameters = _signature_of(task.func, task.takes_context).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in names:
        if name not in parameters and not takes_any:
            raise refuse(
                f"unique names an argument {name!r}, which the function does not take. "
                f"It takes: {', '.join(parameters) or 'none'}."
            )
    return tuple(sorted(set(names)))


def has_key(task: Task) -> bool:
    """Say whether the jobs of a task may have a unique key."""
    return task.unique is not False or task.unique_key is not None


def key_of(task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return the unique key of a call, whose arguments are as JSON holds them; None if its job is not unique.

    Raise InvalidArgument if the function or ``unique`` cannot be called so, or ``unique`` returns what is no text.
    """
    if task.unique_key is not None:
        return task.unique_key
    if task.unique is False:
        return None
    if callable(task.unique):
        return _made_by(task.unique, task, args, kwargs)
    given = _as_called(task, args, kwargs)
    if task.unique is not True:
        given = _named(task, given)
    return _with_path(task.path, _digest([task.path, given]))


def _made_by(
    unique: Callable[..., str | None], task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str | None:
    try:
        text = unique(*args, **kwargs)
    except TypeError as error:
        raise InvalidArgument(
            f"unique of task {task.path} cannot be made of the arguments {args!r} and {kwargs!r}: {error}. "
            "It is called with the arguments of the job, as the task is."
        ) from error
    if text is None:
        return None
    if not isinstance(text, str) or not text.strip():
        raise InvalidArgument(
            f"unique of task {task.path} returned {text!r}. It returns a text that is not empty, "
            "or None for a job that is not unique."
        )
    return _with_path(task.path, str.__str__(text))


def _as_called(task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by the names of the function's parameters, with its defaults, however they were spelled."""
    try:
        bound = _signature_of(task.func, task.takes_context).bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidArgument(
            f"Task {task.path} cannot be called with these arguments, of which its unique key is made: {error}."
        ) from error
    return {**_defaults_of(task.func, task.takes_context), **bound.arguments}


def _named(task: Task, given: Mapping[str, Any]) -> dict[str, Any]:
    assert isinstance(task.unique, tuple)
    by_name = dict(given)
    for parameter in _signature_of(task.func, task.takes_context).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            # A parameter's own name wins over one among the others.
            by_name = {**given[parameter.name], **given}
    return {name: by_name[name] for name in task.unique if name in by_name}


@lru_cache(maxsize=1000)
def _signature_of(function: Callable[..., Any], takes_context: bool) -> inspect.Signature:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    return signature.replace(parameters=parameters[1:]) if takes_context else signature


@lru_cache(maxsize=1000)
def _defaults_of(function: Callable[..., Any], takes_context: bool) -> dict[str, Any]:
    """Return the defaults as JSON holds them. What it cannot hold nobody can pass either: that is left out."""
    bound = _signature_of(function, takes_context).bind_partial()
    bound.apply_defaults()
    defaults = {}
    for name, value in bound.arguments.items():
        with suppress(TypeError, ValueError, RecursionError):
            defaults[name] = json.loads(json.dumps(normalize_json(value), allow_nan=False))
    return defaults


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _with_path(path: str, text: str) -> str:
    """Return a key that no other task and text have. A colon in the path would make it unclear where that ends."""
    begin = path.replace("%", "%25").replace(":", "%3A")
    key = f"{begin}:{text}"
    return key if is_name(key, LONGEST_KEY) else f"{begin[:_LONGEST_PATH]}:{_digest([path, text])}"
