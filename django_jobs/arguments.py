"""The arguments of a job: what every database can store of them as JSON, and what a task can be called with."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Model

from . import conf
from .compat import DjangoTask, normalize_json
from .exceptions import InvalidArgument
from .task import path_of

# How deeply lists and dicts may be nested: well within what can be copied and read back anywhere.
DEEPEST = 100


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


def refuse_call(task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise InvalidArgument if the task's function cannot be called with these arguments."""
    try:
        signature = inspect.signature(task.func)
    except (TypeError, ValueError):
        # Some functions written in C do not tell their signature.
        return
    context = (None,) if task.takes_context else ()
    try:
        signature.bind(*context, *args, **kwargs)
    except TypeError as error:
        raise InvalidArgument(
            f"{path_of(task)} cannot be called with these arguments: {error}. {_takes(task)}"
        ) from error


def _takes(task: DjangoTask) -> str:
    names = _parameter_names(task)
    return f"It takes {', '.join(names)}." if names else "It takes none."
