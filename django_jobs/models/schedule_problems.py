"""What is wrong with a schedule, if anything: one judgement for forms, code, checks and whoever fires it.

It sees values, whoever wrote them, and never raises: a row may have been written past every check, and its task may
be gone since.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.utils import timezone

from .. import conf
from ..arguments import clean_arguments, refuse_call
from ..compat import DjangoTask, InvalidTask, InvalidTaskBackend
from ..crontab import validate
from ..exceptions import InvalidArgument, InvalidOption, UnknownTask
from ..options import LONGEST_PATH, LONGEST_QUEUE_NAME, is_name, shown
from ..task import Task, find_task, path_of
from .database import as_column

OVERLAPS = ("allow", "skip", "replace")
CATCH_UPS = ("none", "latest", "all")
MOST_CAUGHT_UP = 1000
# A task's path is the name of the schedule that it declares.
LONGEST_NAME = LONGEST_PATH
# Times that can still be moved by a zone's offset, and by years.
_EARLIEST, _LATEST = 1970, 9000
# Jitter may not move a run to another day's.
LONGEST_JITTER = 86400.0


def problems_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with these values of a row, by setting; without those that are left out.

    Each is the end of a sentence that begins with the setting's name.
    """
    judged = ((name, _JUDGES[name](values[name])) for name in SETTINGS if name in values)
    problems = {name: problem for name, problem in judged if problem}
    for name, problem in _together(values).items():
        problems.setdefault(name, problem)
    return problems


def problem_of(values: Mapping[str, Any]) -> str:
    """Return what is wrong with these values of a row, in words; nothing if they can work."""
    return " ".join(f"{name} {problem}" for name, problem in problems_of(values).items())


def refuse_problems(schedule: str, values: Mapping[str, Any]) -> None:
    """Raise InvalidOption if a schedule with these values cannot work."""
    problems = problems_of(values)
    if problems:
        raise InvalidOption(" ".join(f"Schedule {schedule!r}: {name} {text}" for name, text in problems.items()))


def refuse_name(name: Any) -> None:
    """Raise InvalidOption for what cannot be the name of a schedule."""
    if not is_name(name, LONGEST_NAME):
        raise InvalidOption(f"The name of a schedule is a text of 1 to {LONGEST_NAME} characters, not {shown(name)}.")


def as_stored(schedule: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the form of the row: ``task`` is a task or its path, durations are seconds or timedeltas.

    Raise InvalidOption, with a suggestion, for one that schedules do not have.
    """
    conf.refuse_unknown("schedule", schedule, said, ["task", *SETTINGS])
    given = dict(said)
    if "task" in given:
        task = given.pop("task")
        given["task_path"] = path_of(task) if isinstance(task, DjangoTask) else task
    return {name: _FORMS.get(name, _same)(value) for name, value in given.items()}


# What each setting may be. Each returns the end of a sentence that begins with the setting's name, or nothing.


def _problem_of_task(value: Any) -> str:
    if not isinstance(value, str) or not value:
        return f"must be the path of a declared task, not {shown(value)}."
    try:
        task = find_task(value)
    except UnknownTask as error:
        return f"names no task: {error}"
    # Django's own decorator makes tasks of whatever backend its alias has; only ours are stored as jobs.
    return "" if isinstance(task, Task) else f"names {value!r}, whose backend {task.backend!r} stores no jobs."


def _problem_of_args(value: Any) -> str:
    return "" if isinstance(value, list) else f"must be a list, not {shown(value)}."


def _problem_of_kwargs(value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return ""
    return f"must be an object of arguments by name, not {shown(value)}."


def _problem_of_cron(value: Any) -> str:
    if value == "":
        return ""
    try:
        validate(value)
    except InvalidOption as error:
        return f"cannot work: {error}"
    return ""


def _problem_of_zone(value: Any) -> str:
    if not isinstance(value, str) or not value:
        return f"must be the name of a time zone such as 'Europe/Paris', not {shown(value)}."
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        # It looks for a file of that name.
        return f"names no time zone: {shown(value)}. Names are such as 'Europe/Paris' and 'UTC'."
    return ""


def _problem_of_time(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, datetime):
        return f"must be a datetime, not {shown(value)}."
    if settings.USE_TZ and timezone.is_naive(value):
        return f"has no time zone: {value.isoformat(' ')}. Give it one, such as tzinfo=UTC."
    if not _EARLIEST <= value.year <= _LATEST:
        return f"must be in a year between {_EARLIEST} and {_LATEST}, not {value.year}."
    return ""


def _problem_of_jitter(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"must be a number of seconds or a timedelta, not {shown(value)}."
    if not math.isfinite(value) or not 0 <= value <= LONGEST_JITTER:
        return f"must be between 0 s and {LONGEST_JITTER:.0f} s (a day), not {shown(value)} s."
    return ""


def _one_of(words: Iterable[str]) -> Callable[[Any], str]:
    def problem(value: Any) -> str:
        return "" if value in words else f"must be one of {', '.join(map(repr, words))}, not {shown(value)}."

    return problem


def _problem_of_limit(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_CAUGHT_UP:
        return ""
    return f"must be a whole number between 1 and {MOST_CAUGHT_UP}, not {shown(value)}."


def _problem_of_queue(value: Any) -> str:
    if value == "" or is_name(value, LONGEST_QUEUE_NAME):
        return ""
    return f"must be a text of at most {LONGEST_QUEUE_NAME} characters, not {shown(value)}. Empty: the task's."


def _problem_of_priority(value: Any) -> str:
    least, most = conf.SMALLEST_PRIORITY, conf.LARGEST_PRIORITY
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= most):
        return ""
    return f"must be a whole number between {least} and {most}, not {shown(value)}."


def _problem_of_bool(value: Any) -> str:
    return "" if isinstance(value, bool) else f"must be True or False, not {shown(value)}."


def _together(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with values that can work each by itself."""
    problems: dict[str, str] = {}
    if values.get("cron") and values.get("run_at") is not None:
        problems["run_at"] = "goes without cron: a schedule comes again and again, or runs once at a time."
    elif "cron" in values and not values["cron"] and values.get("run_at") is None:
        problems["cron"] = "is empty and run_at is missing: one of the two says when it runs."
    start, end = values.get("start_at"), values.get("end_at")
    if isinstance(start, datetime) and isinstance(end, datetime) and _is_before(end, start):
        problems["end_at"] = "is before start_at: it would never run."
    if "task_path" in values and not _problem_of_task(values["task_path"]):
        problems |= _problem_of_call(values) | _problem_of_use(values)
    return problems


def _problem_of_use(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what the task's backend says of the queue and the priority."""
    queue_name, priority = values.get("queue_name"), values.get("priority")
    if _problem_of_queue(queue_name or "") or _problem_of_priority(priority):
        return {}
    try:
        find_task(values["task_path"]).using(queue_name=queue_name or None, priority=priority)
    except (InvalidTask, InvalidTaskBackend) as error:
        return {"queue_name" if queue_name else "task_path": f"cannot be used: {error}"}
    return {}


def _is_before(end: datetime, start: datetime) -> bool:
    try:
        return end < start
    except TypeError:
        return False


def _problem_of_call(values: Mapping[str, Any]) -> dict[str, str]:
    args, kwargs = values.get("args", []), values.get("kwargs", {})
    if _problem_of_args(args) or _problem_of_kwargs(kwargs):
        return {}
    task = find_task(values["task_path"])
    try:
        clean_arguments(task, args, kwargs)
        refuse_call(task, args, kwargs)
    except InvalidArgument as error:
        return {"kwargs" if kwargs and not args else "args": f"cannot be passed: {error}"}
    return {}


_JUDGES: dict[str, Callable[[Any], str]] = {
    "task_path": _problem_of_task,
    "args": _problem_of_args,
    "kwargs": _problem_of_kwargs,
    "cron": _problem_of_cron,
    "run_at": _problem_of_time,
    "timezone": _problem_of_zone,
    "enabled": _problem_of_bool,
    "start_at": _problem_of_time,
    "end_at": _problem_of_time,
    "jitter": _problem_of_jitter,
    "overlap": _one_of(OVERLAPS),
    "catch_up": _one_of(CATCH_UPS),
    "catch_up_limit": _problem_of_limit,
    "queue_name": _problem_of_queue,
    "priority": _problem_of_priority,
}
SETTINGS = tuple(_JUDGES)
# What says when a schedule runs.
TIMES = ("cron", "run_at", "timezone", "start_at", "end_at")


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _in_seconds(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _as_time(value: Any) -> Any:
    return as_column(value) if isinstance(value, datetime) and timezone.is_aware(value) else value


def _as_zone(value: Any) -> Any:
    return value.key if isinstance(value, ZoneInfo) and value.key else value


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _same(value: Any) -> Any:
    return value


_FORMS: dict[str, Callable[[Any], Any]] = {
    "args": _as_list,
    "cron": _stripped,
    "timezone": _as_zone,
    "jitter": _in_seconds,
    **dict.fromkeys(("run_at", "start_at", "end_at"), _as_time),
}
