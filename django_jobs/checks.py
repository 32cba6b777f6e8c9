"""System checks: what is wrong with a project's settings, said before a worker or a request meets it.

A message is a fact, its hint the instruction. Nothing here touches the database, and nothing raises: a setting that
cannot be read is reported once, and what depends on it is left out.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import connections, router
from django.utils.module_loading import import_string

from . import conf
from .compat import InvalidTaskBackend, task_backends
from .exceptions import InvalidOption
from .task import Task

ROUTER = "django_jobs.models.database.JobsRouter"
BACKEND = "django_jobs.backend.JobsBackend"


@register("django_jobs")
def check_settings(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check DJANGO_JOBS and what it needs of DATABASES and TASKS."""
    try:
        unknown = conf.unknown_keys()
    except InvalidOption as error:
        return [Error(str(error), hint="Make it a dict, or leave it out for the defaults.", id="django_jobs.E001")]
    values, messages = _read_all()
    messages += [_unknown_key(key, suggestion) for key, suggestion in unknown.items()]
    for check in (
        _check_contradictions,
        _check_database,
        _check_queues,
        _check_schedules,
        _check_middleware,
        _check_duties,
    ):
        messages += check(values)
    return [*messages, *_check_tasks()]


def _read_all() -> tuple[dict[str, Any], list[CheckMessage]]:
    """Return the settings that can be read, and an error for each that cannot."""
    values: dict[str, Any] = {}
    errors: list[CheckMessage] = []
    for setting in conf.SETTINGS.values():
        try:
            values[setting.name] = conf.read(setting.name)
        except InvalidOption as error:
            hint = f"{setting.sentence} Leave it out for the default, {setting.default!r}."
            errors.append(Error(str(error), hint=hint, id="django_jobs.E003"))
    return values, errors


def _unknown_key(key: Any, suggestion: str | None) -> CheckMessage:
    hint = f"Did you mean {suggestion!r}?" if suggestion else f"The settings are {', '.join(conf.SETTINGS)}."
    return Error(f"DJANGO_JOBS has a key {key!r}, which is no setting.", hint=hint, id="django_jobs.E002")


def _check_contradictions(values: dict[str, Any]) -> Iterator[CheckMessage]:
    if not values.keys() >= {"HEARTBEAT_INTERVAL", "HEARTBEAT_TIMEOUT", "MIN_PRIORITY", "MAX_PRIORITY", "LOG_FORMAT"}:
        return
    try:
        conf.check_options(values)
    except InvalidOption as error:
        yield Error(f"DJANGO_JOBS cannot work: {error}", hint="Change one of the values.", id="django_jobs.E004")


def _check_database(values: dict[str, Any]) -> Iterator[CheckMessage]:
    alias = values.get("DATABASE")
    if alias is None:
        return
    if alias not in connections:
        suggestion = conf.closest(alias, connections)
        hint = f"Did you mean {suggestion!r}?" if suggestion else f"The databases are {', '.join(connections)}."
        fact = f"DJANGO_JOBS['DATABASE'] is {alias!r}, which DATABASES does not have."
        yield Error(fact, hint=hint, id="django_jobs.E005")
        return
    yield from _check_router(alias)
    yield from _check_memory(alias, values.get("PROCESSES"))


def _check_router(alias: str) -> Iterator[CheckMessage]:
    from .models import Job

    if router.db_for_write(Job) != alias or not router.allow_migrate_model(alias, Job):
        yield Error(
            f"The jobs are in the database {alias!r}, but no router sends their tables there.",
            hint=f"Put {ROUTER!r} first into DATABASE_ROUTERS.",
            id="django_jobs.E006",
        )


def _check_memory(alias: str, processes: int | None) -> Iterator[CheckMessage]:
    # The test runner's databases in memory have other names: they are meant.
    database = connections.settings[alias]
    if database["ENGINE"].endswith(".sqlite3") and str(database["NAME"]) in ("", ":memory:") and processes != 0:
        yield Warning(
            f"The database {alias!r} is in the memory of one process; workers are processes of their own and see no job.",
            hint="Give the database a file.",
            id="django_jobs.W001",
        )


def _check_queues(values: dict[str, Any]) -> Iterator[CheckMessage]:
    from .models.queue_problems import SETTINGS, checked_entry

    if "QUEUES" not in values:
        return
    for name, settings in conf.queues().items():
        try:
            checked_entry(name, settings)
        except InvalidOption as error:
            hint = f"Correct it. A queue takes upsert, {', '.join(SETTINGS)}."
            yield Error(f"DJANGO_JOBS['QUEUES'] cannot work. {error}", hint=hint, id="django_jobs.E011")


def _check_schedules(values: dict[str, Any]) -> Iterator[CheckMessage]:
    from .models.schedule_queryset import checked_entry, declared_schedules

    if "SCHEDULES" not in values:
        return
    for name, settings in declared_schedules().items():
        try:
            checked_entry(name, settings)
        except InvalidOption as error:
            place = "DJANGO_JOBS['SCHEDULES']" if name in values["SCHEDULES"] else "@task(cron=...)"
            hint = "Correct it: workers do not start with a schedule that cannot work."
            yield Error(f"{place} cannot work. {error}", hint=hint, id="django_jobs.E012")


def _check_middleware(values: dict[str, Any]) -> Iterator[CheckMessage]:
    for path in values.get("MIDDLEWARE", ()):
        factory, problem = _load(path)
        if problem is None and not _accepts(factory, 1):
            problem = "is no callable that takes the next call of the chain"
        if problem is not None:
            fact = f"DJANGO_JOBS['MIDDLEWARE'] names {path!r}, which {problem}."
            hint = "Name a function of the form: def middleware(call): def run(job): ...; return run."
            yield Error(fact, hint=hint, id="django_jobs.E007")


def _check_duties(values: dict[str, Any]) -> Iterator[CheckMessage]:
    for entry in values.get("DUTIES", ()):
        problem = _problem_of_duty(entry)
        if problem is not None:
            hint = "An entry is (name, seconds, dotted path of a function without arguments)."
            yield Error(f"DJANGO_JOBS['DUTIES'] has {entry!r}: {problem}.", hint=hint, id="django_jobs.E008")


def _problem_of_duty(entry: Any) -> str | None:
    if not isinstance(entry, list | tuple) or len(entry) != 3:
        return "it is not a tuple of three"
    name, seconds, path = entry
    if not isinstance(name, str) or not name:
        return f"the name {name!r} is no text"
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        return f"{seconds!r} is no number of seconds above 0"
    function, problem = _load(path)
    if problem is not None:
        return f"{path!r} {problem}"
    return None if _accepts(function, 0) else f"{path!r} is no function without arguments"


def _check_tasks() -> Iterator[CheckMessage]:
    if not any(_is_ours(alias) for alias in task_backends):
        yield Warning(
            "No backend in TASKS is one of django_jobs: tasks that are enqueued do not become jobs.",
            hint=f"Set TASKS = {{'default': {{'BACKEND': {BACKEND!r}, 'QUEUES': []}}}}.",
            id="django_jobs.W002",
        )


def _is_ours(alias: str) -> bool:
    try:
        return issubclass(task_backends[alias].task_class, Task)
    except InvalidTaskBackend:
        # Django's own check says what is wrong with it.
        return False


def _load(path: Any) -> tuple[Any, str | None]:
    """Return what a dotted path names, or what is wrong with it."""
    if not isinstance(path, str):
        return None, "is no dotted path"
    try:
        return import_string(path), None
    except ImportError as error:
        return None, f"cannot be imported: {error}"
    except Exception as error:  # noqa: BLE001 - a project's module may raise anything while it is imported
        return None, f"cannot be imported: its module raises {type(error).__name__}: {error}"


def _accepts(function: Any, count: int) -> bool:
    """Say whether ``function`` can be called with so many positional arguments."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        # Some functions written in C do not tell their signature.
        return True
    return True
