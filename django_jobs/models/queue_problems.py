"""What is wrong with the settings of a queue, if anything: one judgement for forms, code, commands and workers.

It sees values, whoever wrote them, and never raises: a row may have been written past every check. Settings that are
given in another form, such as a timedelta for seconds, are brought into that of the row first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any

from .. import conf
from ..exceptions import InvalidOption
from ..options import LONGEST_QUEUE_NAME, is_name, shown

# Empty: as the task says.
EXECUTORS = ("", "thread")

# So much is read at a glance, and compiled in no time.
LONGEST_EXPRESSION = 500
MOST_EXPRESSIONS = 100
EVERY_WORKER = "*"

# What the columns hold.
_MOST = 2**31 - 1
_PRIORITIES = 200


def problems_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with these values of a row, by setting; without those that are left out."""
    judged = ((name, _JUDGES[name](values[name])) for name in SETTINGS if name in values)
    problems = {name: problem for name, problem in judged if problem}
    limit, window = (values.get(name) for name in _RATE)
    if limit is None and window is not None:
        problems["rate_limit"] = "is missing: rate_window goes with it."
    if window is None and limit is not None:
        problems["rate_window"] = "is missing: rate_limit goes with it."
    return problems


def problem_of(values: Mapping[str, Any]) -> str:
    """Return what is wrong with these values of a row, in words; nothing if they can work."""
    return " ".join(f"{name} {problem}" for name, problem in problems_of(values).items())


def refuse_problems(queue: str, values: Mapping[str, Any], given: Iterable[str]) -> None:
    """Raise InvalidOption if one of the given settings cannot work among these values of the queue's row."""
    meant = set(given)
    # Either of the two may be what makes the other one wrong.
    meant |= set(_RATE) if meant & set(_RATE) else set()
    problems = {name: problem for name, problem in problems_of(values).items() if name in meant}
    if problems:
        raise InvalidOption(" ".join(f"Queue {queue!r}: {name} {problem}" for name, problem in problems.items()))


def refuse_name(name: Any) -> None:
    """Raise InvalidOption for what cannot be the name of a queue."""
    if not is_name(name, LONGEST_QUEUE_NAME):
        raise InvalidOption(
            f"The name of a queue is a text of 1 to {LONGEST_QUEUE_NAME} characters, not {shown(name)}."
        )


def as_stored(queue: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the form of the row. Raise InvalidOption, with a suggestion, for one that queues do not have."""
    conf.refuse_unknown("queue", queue, settings, SETTINGS)
    return {name: _FORMS.get(name, _same)(value) for name, value in settings.items()}


def checked_entry(queue: Any, settings: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Return what an entry of ``DJANGO_JOBS["QUEUES"]`` says: whether it overwrites the row, and with which settings.

    Raise InvalidOption if it could not make a row.
    """
    refuse_name(queue)
    upsert = settings.get("upsert", False)
    if not isinstance(upsert, bool):
        raise InvalidOption(f"Queue {queue!r}: upsert must be True or False, not {shown(upsert)}.")
    values = as_stored(queue, {name: value for name, value in settings.items() if name != "upsert"})
    refuse_problems(queue, values, values)
    return upsert, values


def matches_tags(expressions: Iterable[str], tags: Iterable[Any]) -> bool:
    """Say whether a worker with these tags may serve a queue with these expressions, which have no problem."""
    texts = [tag for tag in tags if isinstance(tag, str)]
    return any(one == EVERY_WORKER or any(map(_compiled(one).fullmatch, texts)) for one in expressions)


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression)


# What each setting may be. Each returns the end of a sentence that begins with the setting's name, or nothing.


def _problem_of_tags(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return f"must be a list of texts, not {shown(value)}."
    if len(value) > MOST_EXPRESSIONS:
        return f"must be at most {MOST_EXPRESSIONS} expressions, not {len(value)}."
    return next(filter(None, map(_problem_of_expression, value)), "")


def _problem_of_expression(value: Any) -> str:
    if not isinstance(value, str):
        return f"must be a list of texts; {shown(value)} is none."
    if len(value) > LONGEST_EXPRESSION:
        return f"has an expression of {len(value)} characters, {shown(value)}; {LONGEST_EXPRESSION} are the most."
    if not is_name(value, LONGEST_EXPRESSION):
        return f"has the expression {value!r}, which is empty or has characters that a database cannot store."
    if value == EVERY_WORKER:
        return ""
    try:
        _compiled(value)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        return f"has the expression {value!r}, which is no regular expression: {error}."
    return ""


def _problem_of_limit(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        return f"must be a whole number between 1 and {_MOST}, not {shown(value)}."
    return "" if value else "must be at least 1, not 0. So that none of its jobs starts, pause the queue."


def _duration(least: float) -> Callable[[Any], str]:
    def problem(value: Any) -> str:
        if value is None:
            return ""
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            return f"must be a number of seconds or a timedelta, not {shown(value)}."
        # NaN is not between any two numbers either.
        if not least <= seconds <= conf.LONGEST_DURATION:
            return f"must be between {least:g} s and {conf.LONGEST_DURATION:.0f} s (ten years), not {shown(seconds)} s."
        return ""

    return problem


def _problem_of_executor(value: Any) -> str:
    if value in EXECUTORS:
        return ""
    return f"must be one of {', '.join(map(repr, EXECUTORS))}, not {shown(value)}."


def _problem_of_raise_by(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _PRIORITIES:
        return ""
    return f"must be a whole number between 1 and {_PRIORITIES}, not {shown(value)}."


# As the database's clock is read to the millisecond at least, and no task is done in less.
_SHORTEST = 0.001

_JUDGES: dict[str, Callable[[Any], str]] = {
    "tags": _problem_of_tags,
    "concurrency": _problem_of_limit,
    "max_running": _problem_of_limit,
    "rate_limit": _problem_of_limit,
    "rate_window": _duration(_SHORTEST),
    "executor": _problem_of_executor,
    "timeout": _duration(_SHORTEST),
    "poll_interval": _duration(0.01),
    "raise_after": _duration(_SHORTEST),
    "raise_by": _problem_of_raise_by,
    "keep_succeeded": _duration(0),
    "keep_failed": _duration(0),
}
SETTINGS = tuple(_JUDGES)
_RATE = ("rate_limit", "rate_window")


def _in_seconds(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _as_timedelta(value: Any) -> Any:
    """Return a timedelta for a number of seconds that one can hold; anything else as it is, to be judged."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    try:
        return timedelta(seconds=value)
    except (OverflowError, ValueError):
        return value


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _same(value: Any) -> Any:
    return value


_FORMS: dict[str, Callable[[Any], Any]] = {
    "tags": _as_list,
    **dict.fromkeys(("rate_window", "timeout", "poll_interval", "raise_after"), _in_seconds),
    **dict.fromkeys(("keep_succeeded", "keep_failed"), _as_timedelta),
}
