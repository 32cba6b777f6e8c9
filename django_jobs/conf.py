"""Every setting of django_jobs, in one table, and the only place that reads them.

Projects set them in one dict, ``DJANGO_JOBS``. Worker options can also come from the environment
(``DJANGO_JOBS_CONCURRENCY=16``) and from ``runworker``'s flags: flag over environment over setting over
default. Durations are seconds, fractions allowed.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import environ
from django.conf import settings

from .exceptions import InvalidOption

# What Django lets a priority be.
SMALLEST_PRIORITY, LARGEST_PRIORITY = -100, 100


class Setting(NamedTuple):
    """One key of DJANGO_JOBS. ``kind`` is the type of its value; ``least`` the smallest number it takes."""

    name: str
    default: Any
    kind: type
    unit: str
    sentence: str
    least: float | None = None
    is_worker_option: bool = False


def _option(name: str, default: Any, kind: type, unit: str, sentence: str, least: float | None = None) -> Setting:
    return Setting(name, default, kind, unit, sentence, least, is_worker_option=True)


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("DATABASE", "default", str, "alias", "The database that holds the jobs tables."),
        Setting(
            "QUEUES",
            [],
            list,
            "queues",
            "Queues to declare besides those that tasks name, or a dict with their settings.",
        ),
        Setting("SCHEDULES", {}, dict, "schedules", "Schedules to keep in step with: a dict of settings by name."),
        Setting("TASK_MODULES", ["tasks", "jobs"], list, "names", "Modules of each installed app to find tasks in."),
        Setting("MAX_ATTEMPTS", 3, int, "attempts", "How often a job is tried, unless its task says otherwise.", 1),
        Setting("MAX_ARGUMENT_BYTES", 1048576, int, "bytes", "The most that a job's arguments may take as JSON.", 2),
        Setting("MAX_RESULT_BYTES", 1048576, int, "bytes", "The most that a task's result may take as JSON.", 2),
        Setting("KEEP_SUCCEEDED", 604800, float, "s", "Delete succeeded jobs after this time; 0 keeps them.", 0),
        Setting(
            "KEEP_FAILED", 2592000, float, "s", "Delete failed and cancelled jobs after this time; 0 keeps them.", 0
        ),
        Setting("KEEP_WORKERS", 86400, float, "s", "Forget stopped and lost workers after this time.", 0),
        Setting("MIDDLEWARE", [], list, "paths", "Callables wrapped around each job, outermost first."),
        Setting("DUTIES", [], list, "tuples", "More duties for the leader: (name, seconds, dotted path)."),
        Setting("APP_VERSION", "", str, "text", "The version of the project, shown with each worker."),
        _option("WORKER_ID", "", str, "text", "The worker's name; empty makes host-pid-hex, unique per start."),
        _option("TAGS", [], list, "tags", "Tags stored with the worker, besides the automatic ones."),
        _option(
            "MIN_PRIORITY", SMALLEST_PRIORITY, int, "priority", "Take no jobs of a smaller priority.", SMALLEST_PRIORITY
        ),
        _option(
            "MAX_PRIORITY", LARGEST_PRIORITY, int, "priority", "Take no jobs of a larger priority.", SMALLEST_PRIORITY
        ),
        _option("CONCURRENCY", 10, int, "jobs", "How many jobs of plain functions run at once in a worker.", 1),
        _option("ASYNC_CONCURRENCY", 100, int, "jobs", "How many async def jobs run at once in a worker.", 1),
        _option(
            "PROCESSES", 1, int, "processes", "How many workers a supervisor starts; 0 runs in its own process.", 0
        ),
        _option("HEARTBEAT_INTERVAL", 10.0, float, "s", "How often a worker's lease is renewed.", 0.01),
        _option(
            "HEARTBEAT_TIMEOUT", 30.0, float, "s", "How long a lease lasts; then the worker's jobs are rescued.", 0.5
        ),
        _option("HANG_TIMEOUT", 300.0, float, "s", "A worker whose loops stand still this long is killed.", 1),
        _option("POLL_INTERVAL", 1.0, float, "s", "How often to look for jobs when no notification came.", 0.01),
        _option("SHUTDOWN_TIMEOUT", 25.0, float, "s", "How long running jobs may go on after the first signal.", 0),
        _option("CLAIM_AHEAD", 0.05, float, "s", "How much work to claim ahead of free threads; 0 = none.", 0),
        _option("NOTIFY", True, bool, "", "Send and hear notifications of new jobs (PostgreSQL)."),
        _option("LOG_FORMAT", "text", str, "", "How runworker writes its log: text or json."),
    )
}


# What timedeltas and the databases' intervals hold without a second thought, and what fits into a worker's row.
LONGEST_DURATION = 10 * 366 * 86400.0
LONGEST_TEXT = 200

_PREFIX = "DJANGO_JOBS_"


def unknown_variables() -> dict[str, str]:
    """Return the environment variables that look like misspelled worker options, each with the one that was meant."""
    known = {_PREFIX + name for name, setting in SETTINGS.items() if setting.is_worker_option}
    unknown = [name for name in environ.Env.ENVIRON if name.startswith(_PREFIX) and name not in known]
    # Others may share the prefix: an orchestrator's variables for a service of that name.
    near = {name: next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.85)), None) for name in unknown}
    return {name: meant for name, meant in near.items() if meant is not None}


def unknown_keys() -> dict[str, str | None]:
    """Return the keys of DJANGO_JOBS that are no settings, each with the closest real one or None."""
    return {key: closest(str(key).upper(), SETTINGS) for key in _dict() if key not in SETTINGS}


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like ``word``, or None if none is near."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)), None)


def refuse_unknown(kind: str, name: str, given: Iterable[Any], known: Sequence[str]) -> None:
    """Raise InvalidOption, with a suggestion, for the first given setting that a ``kind`` of row does not have."""
    unknown = [setting for setting in given if setting not in known]
    if not unknown:
        return
    suggestion = closest(str(unknown[0]), known)
    raise InvalidOption(
        f"{kind.capitalize()} {name!r}: A {kind} has no setting {unknown[0]!r}."
        + (f" Did you mean {suggestion!r}?" if suggestion else "")
        + f" It has: {', '.join(known)}."
    )


def read(name: str) -> Any:
    """Return the value of one setting: from DJANGO_JOBS, else its default. Raise InvalidOption for a bad one."""
    setting = SETTINGS[name]
    values = _dict()
    if name not in values and setting.kind is not list:
        # A default is right, and this is read several times per job.
        return setting.default
    return _checked(setting, values.get(name, setting.default), f"DJANGO_JOBS[{name!r}]")


def read_or_default(name: str) -> Any:
    """Return the value of a setting, or its default for a bad one: while apps are loaded, before the checks can say so."""
    try:
        return read(name)
    except InvalidOption:
        return SETTINGS[name].default


def queues() -> dict[str, dict[str, Any]]:
    """Return the queues of the settings, each with what they say of it, which nobody has judged yet."""
    value = read("QUEUES")
    return dict(value) if isinstance(value, dict) else {name: {} for name in value}


def schedules() -> dict[str, dict[str, Any]]:
    """Return the schedules of the settings, by name, which nobody has judged yet."""
    return {name: dict(settings_of_it) for name, settings_of_it in read("SCHEDULES").items()}


def database() -> str:
    """Return the alias of the database that holds the jobs tables."""
    alias: str = read("DATABASE")
    return alias


@contextmanager
def changed(**values: Any) -> Iterator[None]:
    """Give settings other values for a while, in every thread of this process. For commands: they have it to themselves."""
    before = getattr(settings, "DJANGO_JOBS", None)
    settings.DJANGO_JOBS = _dict() | values
    try:
        yield
    finally:
        if before is None:
            del settings.DJANGO_JOBS
        else:
            settings.DJANGO_JOBS = before


class Option(NamedTuple):
    """A worker option's value and where it came from: flag, environment, setting or default."""

    value: Any
    source: str


def worker_options(flags: Mapping[str, Any]) -> dict[str, Option]:
    """Resolve every worker option: flag over environment over setting over default.

    ``flags`` maps option names to values; None means "not given". Raise InvalidOption, naming the
    place, for a value that cannot work.
    """
    for name, meant in unknown_variables().items():
        raise InvalidOption(f"There is no option for the environment variable {name}. Did you mean {meant}?")
    env = environ.Env()
    options = {}
    for name, setting in SETTINGS.items():
        if not setting.is_worker_option:
            continue
        variable = _PREFIX + name
        if flags.get(name) is not None:
            flag = "--" + name.lower().replace("_", "-")
            options[name] = Option(_checked(setting, flags[name], flag), "flag")
        elif variable in env.ENVIRON:
            options[name] = Option(
                _checked(setting, _from_environment(env, setting, variable), variable), "environment"
            )
        else:
            options[name] = Option(read(name), "setting" if name in _dict() else "default")
    check_options({name: option.value for name, option in options.items()})
    return options


def check_options(options: Mapping[str, Any]) -> None:
    """Raise InvalidOption when two options contradict each other."""
    interval, timeout = options["HEARTBEAT_INTERVAL"], options["HEARTBEAT_TIMEOUT"]
    if timeout <= interval:
        raise InvalidOption(
            f"HEARTBEAT_TIMEOUT ({timeout:g} s) must be longer than HEARTBEAT_INTERVAL ({interval:g} s), or every "
            "worker looks dead between two beats. Three times the interval is a good value."
        )
    lowest, highest = options["MIN_PRIORITY"], options["MAX_PRIORITY"]
    if highest > LARGEST_PRIORITY or lowest > highest:
        raise InvalidOption(
            f"MIN_PRIORITY ({lowest}) and MAX_PRIORITY ({highest}) say which jobs a worker takes: from the first to the "
            f"second, both between {SMALLEST_PRIORITY} and {LARGEST_PRIORITY}."
        )
    if options["LOG_FORMAT"] not in ("text", "json"):
        raise InvalidOption(f"LOG_FORMAT is 'text' or 'json', not {options['LOG_FORMAT']!r}.")


def _dict() -> dict[str, Any]:
    value = getattr(settings, "DJANGO_JOBS", {})
    if not isinstance(value, dict):
        raise InvalidOption(f"DJANGO_JOBS must be a dict, not {type(value).__name__}.")
    return value


def _from_environment(env: environ.Env, setting: Setting, variable: str) -> Any:
    text = env.str(variable)
    try:
        match setting.kind.__name__:
            case "bool":
                # environ takes any other word for false.
                if text.lower() not in (*env.BOOLEAN_TRUE_STRINGS, "false", "off", "no", "n", "0"):
                    raise ValueError(text)
                return env.bool(variable)
            case "list":
                return env.list(variable)
            case "int":
                return env.int(variable)
            case "float":
                return env.float(variable)
    except ValueError as error:
        raise InvalidOption(f"{variable}={text!r} is not {_KIND_NAMES[setting.kind]}.") from error
    return text


_KIND_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "a dict",
}


def _checked(setting: Setting, value: Any, place: str) -> Any:
    if setting.unit == "queues" and isinstance(value, dict):
        return _checked_entries(value, place, "queues", "{'concurrency': 5}")
    if setting.kind is dict and isinstance(value, dict):
        return _checked_entries(value, place, "schedules", "{'task': 'app.tasks.report', 'cron': '@daily'}")
    accepted: Any = {float: (int, float), list: (list, tuple)}.get(setting.kind, (setting.kind,))
    is_number = setting.kind in (int, float)
    if not isinstance(value, accepted) or (is_number and isinstance(value, bool)):
        raise InvalidOption(f"{place} must be {_KIND_NAMES[setting.kind]}, not {value!r}.")
    if setting.kind is list and setting.unit != "tuples":
        for entry in value:
            if not isinstance(entry, str):
                raise InvalidOption(f"{place} must be a list of texts; {entry!r} is none.")
    if is_number and not math.isfinite(value):
        raise InvalidOption(f"{place} must be a finite number, not {value!r}.")
    if setting.unit == "s" and value > LONGEST_DURATION:
        raise InvalidOption(f"{place} must be at most {LONGEST_DURATION:.0f} s (ten years), not {value!r}.")
    if setting.kind is str and len(value) > LONGEST_TEXT:
        raise InvalidOption(f"{place} must have at most {LONGEST_TEXT} characters; it has {len(value)}.")
    if setting.least is not None and value < setting.least:
        raise InvalidOption(
            f"{place} must be at least {setting.least:g}{setting.unit and ' '}{setting.unit}, not {value!r}."
        )
    return list(value) if setting.kind is list else value


def _checked_entries(value: dict[Any, Any], place: str, what: str, example: str) -> dict[str, dict[str, Any]]:
    for name, settings_of_it in value.items():
        if not isinstance(name, str):
            raise InvalidOption(f"{place} must have names of {what} as keys; {name!r} is none.")
        if not isinstance(settings_of_it, dict):
            raise InvalidOption(
                f"{place}[{name!r}] must be a dict of settings, such as {example}, not {settings_of_it!r}."
            )
    return {name: dict(settings_of_it) for name, settings_of_it in value.items()}
