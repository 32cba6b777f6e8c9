"""``manage.py jobs schedules``: its flags, the call that each of its commands makes, and what it prints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db import IntegrityError, transaction

from django_jobs import conf
from django_jobs.exceptions import DuplicateJob, UnknownSchedule
from django_jobs.management.section import (
    CODES,
    NOTHING_DONE,
    USAGE,
    AddCommand,
    Options,
    Section,
    explained,
    moment,
    table,
)
from django_jobs.models import Schedule
from django_jobs.models.schedule_history import last_jobs
from django_jobs.models.schedule_problems import SETTINGS

# What ``add`` takes and ``show`` shows, by the name of the column.
COLUMNS = tuple(setting for setting in SETTINGS if setting != "enabled")
_ARGS = "arguments"
_DESTINATIONS = {column: _ARGS if column == "args" else column for column in COLUMNS}
LISTED_RUNS, SHOWN_RUNS, NEXT_RUNS = 5, 20, 5


class ScheduleCommands(Section):
    def add_to(self, add: AddCommand) -> None:
        """Add the commands with their flags."""
        add("list", self.list, _LIST)
        for name, call, sentence, *aliases in (
            ("show", self.show, _SHOW),
            ("run", self.run, _RUN),
            # As queues have them.
            ("enable", self.enable, _ENABLE, "resume"),
            ("disable", self.disable, _DISABLE, "pause"),
            ("add", self.add, _ADD),
            ("delete", self.delete, _DELETE),
        ):
            parser = add(name, call, sentence, *aliases)
            parser.add_argument("name", metavar="NAME")
            if name == "disable":
                parser.add_argument("--reason", default="", metavar="TEXT", help="Shown to everybody who looks.")
            if name == "add":
                _add_settings(parser)

    def list(self, options: Options) -> None:
        with explained():
            schedules = list(Schedule.objects.order_by("name"))
            runs = last_jobs(schedules, LISTED_RUNS)
        rows = [_row(schedule, runs[schedule.pk]) for schedule in schedules]
        self.say(options, rows, _table(rows))

    def show(self, options: Options) -> None:
        with explained():
            schedule = _find(options["name"])
            runs = last_jobs([schedule], SHOWN_RUNS)[schedule.pk]
        told = _row(schedule, runs) | {"next_runs": _next_runs(schedule)}
        self.say(options, told, _page(told))

    def run(self, options: Options) -> None:
        with explained():
            schedule = _find(options["name"])
            try:
                result = Schedule.objects.run_now(schedule.name)
            except DuplicateJob as error:
                raise CommandError(str(error), returncode=NOTHING_DONE) from error
        if not result.is_new:
            text = f"Schedule {schedule.name!r} was not run: job {result.id} has its unique key."
            raise CommandError(text, returncode=NOTHING_DONE)
        told = {"name": schedule.name, "job": int(result.id)}
        self.say(options, told, f"Schedule {schedule.name!r} runs now, as job {result.id}.")

    def enable(self, options: Options) -> None:
        with explained():
            changed = Schedule.objects.resume(_find(options["name"]).name)
        self._say_changed(options, "enabled", changed)

    def disable(self, options: Options) -> None:
        with explained():
            changed = Schedule.objects.pause(_find(options["name"]).name, options["reason"])
        self._say_changed(options, "disabled", changed)

    def add(self, options: Options) -> None:
        name = options["name"]
        given = {column: options[flag] for column, flag in _DESTINATIONS.items() if flag in options}
        schedule = Schedule(name=name, **given)
        with explained():
            if Schedule.objects.filter(name=name).exists():
                raise CommandError(_exists(name), returncode=NOTHING_DONE)
            try:
                schedule.full_clean()
                with transaction.atomic(using=conf.database()):
                    schedule.save(using=conf.database(), force_insert=True)
            except ValidationError as error:
                raise CommandError(_words_of(error), returncode=USAGE) from error
            except IntegrityError as error:
                raise CommandError(_exists(name), returncode=NOTHING_DONE) from error
        told = _row(schedule, []) | {"next_runs": _next_runs(schedule)}
        first = told["next_runs"][0] if told["next_runs"] else "never"
        self.say(options, told, f"Schedule {name!r} was added: {_when(told)}. First run: {first}.")

    def delete(self, options: Options) -> None:
        name = options["name"]
        with explained():
            schedule = _find(name)
            schedule.delete(using=conf.database())
        told = {"name": name, "is_declared": schedule.is_declared}
        back = (
            " The code or the settings declare it: it comes back when a worker starts." if told["is_declared"] else ""
        )
        self.say(options, told, f"Schedule {name!r} was deleted; its jobs stay.{back}")

    def _say_changed(self, options: Options, verb: str, changed: bool) -> None:
        name = options["name"]
        self.say(options, {"name": name, verb: changed}, f"Schedule {name!r} was {verb}." if changed else "")
        if not changed:
            raise CommandError(f"Schedule {name!r} is {verb} already.", returncode=NOTHING_DONE)


def _find(name: str) -> Schedule:
    try:
        return Schedule.objects.named(name)
    except UnknownSchedule as error:
        raise CommandError(str(error), returncode=NOTHING_DONE) from error


def _exists(name: str) -> str:
    return f"There is a schedule {name!r} already. Delete it first, or edit it in the admin."


def _words_of(error: ValidationError) -> str:
    by_field = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
    return "\n".join(
        text if field in ("", "__all__") or text.startswith(field) else f"{field}: {text}"
        for field, texts in by_field.items()
        for text in texts
    )


# Flags


def _add_settings(parser: CommandParser) -> None:
    def add(flag: str, text: str, **options: Any) -> None:
        # Without a default: what is not given is as the model says.
        parser.add_argument(flag, help=text.replace("%", "%%"), **{"default": argparse.SUPPRESS} | options)

    add("--task", "The task, by its name or path.", dest="task_path", metavar="PATH", required=True)
    when = parser.add_mutually_exclusive_group(required=True)
    when.add_argument("--cron", metavar="EXPR", default=argparse.SUPPRESS, help="When: '30 2 * * *', '@hourly'.")
    when.add_argument("--at", dest="run_at", type=moment, metavar="ISO", default=argparse.SUPPRESS, help="Once, then.")
    add("--timezone", "Whose hours the expression means. Default: the project's.", metavar="ZONE")
    # Django's commands have another use for "args".
    add("--args", "Positional arguments: a JSON list.", dest=_ARGS, type=_json(list, "list"), metavar="JSON")
    add("--kwargs", "Keyword arguments: a JSON object.", type=_json(dict, "object"), metavar="JSON")
    add("--queue", "Default: the task's.", dest="queue_name", metavar="NAME")
    add("--priority", "Default: the task's.", type=int, metavar="N")
    add("--start", "Not before.", dest="start_at", type=moment, metavar="ISO")
    add("--end", "Not after.", dest="end_at", type=moment, metavar="ISO")
    add("--jitter", "Each run is late by up to so much, at random. In seconds.", type=float, metavar="S")
    add("--overlap", "What happens while the run before has not ended: allow, skip or replace.", metavar="X")
    add("--catch-up", "What becomes of moments that nobody was there for: none, latest or all.", metavar="X")
    add("--catch-up-limit", "With all: at most so many.", type=int, metavar="N")


def _json(kind: type, word: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise argparse.ArgumentTypeError(f"{text[:100]!r} is no JSON: {error}") from None
        if not isinstance(value, kind):
            raise argparse.ArgumentTypeError(f"{text!r} is no JSON {word}")
        return value

    return parse


# What is printed


def _row(schedule: Schedule, runs: Iterable[Any]) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "enabled": schedule.enabled,
        "paused_reason": "" if schedule.enabled else schedule.paused_reason,
        "problem": schedule.problem,
        "words": "" if schedule.has_bad_times else schedule.words,
        "next_run_at": schedule.next_run_at if schedule.enabled else None,
        "last_run_at": schedule.last_run_at,
        "late": schedule.late,
        "missed": schedule.missed,
        "skipped": schedule.skipped,
        "is_declared": schedule.is_declared,
        "last_runs": [{"job": run.pk, "state": str(run.state), "scheduled_for": run.scheduled_for} for run in runs],
        "settings": {name: getattr(schedule, name) for name in COLUMNS},
    }


def _next_runs(schedule: Schedule) -> list[datetime]:
    """Return the next runs in the zone of the schedule."""
    if schedule.has_bad_times:
        return []
    zone = ZoneInfo(schedule.timezone)
    return [run.astimezone(zone) for run in schedule.next_runs(NEXT_RUNS)]


def _table(rows: list[dict[str, Any]]) -> str:
    problems = [f"{row['name']}: {row['problem']}" for row in rows if row["problem"]]
    titles = ("SCHEDULE", "STATE", "WHEN", "ZONE", "NEXT", "LAST", "OUTCOMES", "LATE")
    return table(titles, map(_cells, rows), problems)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    outcomes = " ".join(run["state"] for run in row["last_runs"])
    times = (_time(row["next_run_at"]), _time(row["last_run_at"]))
    zone = row["settings"]["timezone"]
    return row["name"], _state(row), _when(row), zone, *times, outcomes or "-", str(row["late"])


def _state(row: dict[str, Any]) -> str:
    words = filter(None, ("" if row["enabled"] else "disabled", "problem" if row["problem"] else ""))
    ended = "" if row["next_run_at"] is not None or not row["enabled"] else "ended"
    return " ".join(words) or ended or "enabled"


def _when(row: dict[str, Any]) -> str:
    settings = row["settings"]
    return settings["cron"] or f"once, at {_time(settings['run_at'])}"


def _time(value: datetime | None) -> str:
    return "-" if value is None else f"{value:%Y-%m-%d %H:%M:%S%z}"


def _moment(run: dict[str, Any]) -> str:
    return _time(run["scheduled_for"]) if run["scheduled_for"] else "by hand"


def _page(told: dict[str, Any]) -> str:
    lines = [f"{told['name']}: {_state(told)}"]
    lines += [f"  {text}" for text in (told["problem"], told["paused_reason"]) if text]
    if told["words"]:
        lines.append(f"  {told['words']}")
    for name, value in told["settings"].items():
        if value not in ("", None):
            lines.append(f"  {name:<15}{_time(value) if isinstance(value, datetime) else value}")
    lines += [f"  {name:<15}{told[name]}" for name in ("late", "missed", "skipped")]
    lines += ["Next runs", *(f"  {_time(run)}" for run in told["next_runs"])]
    lines += ["Last runs", *(f"  {_moment(run)}  job {run['job']}: {run['state']}" for run in told["last_runs"])]
    return "\n".join(lines)


SCHEDULES = (
    "Look at the schedules, run, enable, disable, add and delete them. Without a command: list. Running workers follow "
    "within two seconds." + CODES
)
_LIST = "Show each schedule with its state, its times and how its last runs ended, newest first." + CODES
_SHOW = "Show a schedule with its settings, its next runs in its own zone, and its last runs." + CODES
_RUN = (
    "Enqueue a job of a schedule at once, also of a disabled one; its times stay as they are. Exit codes: 0 done; 1 nothing "
    "was done: no such schedule; 2 wrong usage, or the schedule cannot work."
)
_ENABLE = (
    "Let a schedule run again, from its next moment on. Exit codes: 0 done; 1 nothing was done: no such schedule, or enabled "
    "already; 2 wrong usage."
)
_DISABLE = (
    "Stop a schedule until it is enabled; jobs that it has enqueued go on. Exit codes: 0 done; 1 nothing was done: no such "
    "schedule, or disabled already; 2 wrong usage."
)
_ADD = (
    "Add a schedule. Times without an offset are in the project's time zone. Exit codes: 0 done; 1 there is one of this "
    "name; 2 wrong usage, or a setting that cannot work."
)
_DELETE = (
    "Delete a schedule; its jobs stay. One that the code or the settings declare comes back when a worker starts: disable "
    "it instead. Exit codes: 0 done; 1 there is no such schedule; 2 wrong usage."
)
