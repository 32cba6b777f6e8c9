"""``manage.py jobs queues``: its flags, the call that each of its commands makes, and what it prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_jobs import conf
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
from django_jobs.models import Queue
from django_jobs.models.backlog import MOST_COUNTED, Backlog, backlogs
from django_jobs.models.database import from_now
from django_jobs.models.queue_problems import SETTINGS
from django_jobs.models.queue_removal import CHOICES
from django_jobs.worker.options import known_queues


class QueueCommands(Section):
    def add_to(self, add: AddCommand) -> None:
        """Add the commands with their flags."""
        add("list", self.list, _LIST)
        pause = add("pause", self.pause, _PAUSE)
        _add_which(pause)
        pause.add_argument("--reason", default="", metavar="TEXT", help="Shown to everybody who looks at the queue.")
        end = pause.add_mutually_exclusive_group()
        end.add_argument("--resume-at", type=moment, metavar="ISO", help="The pause ends by itself at this time.")
        end.add_argument("--for", dest="for_", type=_wait, metavar="SECONDS", help="The pause ends after this time.")
        _add_which(add("resume", self.resume, _RESUME))
        _add_settings(add("declare", self.declare, _DECLARE))
        delete = add("delete", self.delete, _DELETE)
        delete.add_argument("name", metavar="NAME")
        delete.add_argument("--jobs", required=True, choices=CHOICES, help="What becomes of its jobs.")

    def list(self, options: Options) -> None:
        with explained():
            queues = list(Queue.objects.all())
            found = backlogs(queues)
        rows = [_row(queue, found[queue.name]) for queue in queues if queue.name in found]
        self.say(options, rows, _table(rows))

    def pause(self, options: Options) -> None:
        queues, name = _which(options)
        resume_at = options["resume_at"] if options["for_"] is None else from_now(timedelta(seconds=options["for_"]))
        with explained():
            changed = queues.pause_all(options["reason"], resume_at)
            is_paused = queues.paused().exists()
        if changed and not is_paused:
            raise CommandError("The pause has ended already: its end is in the past.", returncode=NOTHING_DONE)
        self._say_changed(options, "paused", changed, name)

    def resume(self, options: Options) -> None:
        queues, name = _which(options)
        with explained():
            changed = queues.resume_all()
        self._say_changed(options, "resumed", changed, name)

    def declare(self, options: Options) -> None:
        name, given = options["name"], {setting: options[setting] for setting in SETTINGS if setting in options}
        with explained():
            queue, is_new, changed, left = Queue.objects.declared(name, given, options["upsert"])
        told = {"name": name, "is_new": is_new, "changed": changed, "left": left, "settings": _settings_of(queue)}
        words = f"changed: {', '.join(changed)}" if changed else "as it was"
        self.say(options, told, f"Queue {name!r} was declared." if is_new else f"Queue {name!r} is {words}.")
        if left:
            text = f"Queue {name!r} exists and keeps its {', '.join(left)}. Give --upsert to change it."
            raise CommandError(text, returncode=NOTHING_DONE)

    def delete(self, options: Options) -> None:
        name, jobs = options["name"], options["jobs"]
        with explained():
            removed = Queue.objects.remove(name, jobs)
        text = (
            f"Queue {name!r} was deleted. Jobs cancelled: {removed.cancelled}, asked to stop: {removed.stopping}, "
            f"deleted: {removed.deleted}."
        )
        self.say(options, {"name": name, **removed._asdict()}, text if removed.is_removed else "")
        if not removed.is_removed:
            raise CommandError(_unknown(name), returncode=NOTHING_DONE)

    def _say_changed(self, options: Options, verb: str, changed: int, name: str | None) -> None:
        subject = f"{changed} queues were" if name is None else f"Queue {name!r} was"
        self.say(options, {"name": name, verb: changed}, f"{subject} {verb}." if changed else "")
        if changed:
            return
        if name is None or Queue.objects.filter(name=name).exists():
            subject = "Every queue" if name is None else f"Queue {name!r}"
            state = {"paused": "paused already", "resumed": "open already"}[verb]
            raise CommandError(f"{subject} is {state}.", returncode=NOTHING_DONE)
        raise CommandError(_unknown(name), returncode=NOTHING_DONE)


def _which(options: Options) -> tuple[Any, str | None]:
    """Return the queues that are meant, and the name if it is one."""
    name = options["name"]
    if (name is None) != options["all"]:
        raise CommandError("Name one queue, or give --all.", returncode=USAGE)
    return (Queue.objects.all(), None) if name is None else (Queue.objects.filter(name=name), name)


def _unknown(name: str) -> str:
    with explained():
        is_known = name in known_queues()
    if is_known:
        return (
            f"There is no queue {name!r} yet: it is declared when a worker starts, or by 'jobs queues declare {name}'."
        )
    meant = conf.closest(name, Queue.objects.values_list("name", flat=True))
    return f"There is no queue {name!r}." + (f" Did you mean {meant!r}?" if meant else "")


# Flags


def _add_which(parser: CommandParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--all", action="store_true", help="All queues there are; not those that are declared later.")


def _add_settings(parser: CommandParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--upsert", action="store_true", help="Change the given settings of a queue that exists.")

    def add(flag: str, kind: Callable[[str], Any], metavar: str, text: str) -> None:
        # Without a default: what is not given is not changed.
        parser.add_argument(flag, type=kind, metavar=metavar, default=argparse.SUPPRESS, help=text)

    for flag, metavar in (("concurrency", "N"), ("max-running", "N"), ("rate-limit", "N"), ("raise-by", "N")):
        add(f"--{flag}", _whole_number, metavar, _help(flag))
    for flag in ("rate-window", "timeout", "poll-interval", "raise-after", "keep-succeeded", "keep-failed"):
        add(f"--{flag}", _seconds, "S", f"{_help(flag)} In seconds.")
    add("--executor", str, "X", _help("executor"))
    tags: dict[str, Any] = {"dest": "tags", "default": argparse.SUPPRESS}
    parser.add_argument("--tag", action="append", metavar="EXPR", help=_help("tags") + " Repeatable.", **tags)
    parser.add_argument("--no-tags", action="store_const", const=[], help="No worker serves the queue.", **tags)


def _help(flag: str) -> str:
    field: Any = Queue._meta.get_field(flag.replace("-", "_"))
    return str(field.help_text or field.verbose_name).replace("%", "%%")


def _or_none(text: str, kind: Callable[[str], Any], words: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither {words} nor 'none'") from None


def _whole_number(text: str) -> Any:
    return _or_none(text, int, "a whole number")


def _seconds(text: str) -> Any:
    return _or_none(text, float, "a number of seconds")


def _wait(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= conf.LONGEST_DURATION:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds between 0 and {conf.LONGEST_DURATION:.0f}")
    return seconds


# What is printed


def _row(queue: Queue, backlog: Backlog) -> dict[str, Any]:
    wait = backlog.oldest_wait
    return {
        "name": queue.name,
        "is_paused": backlog.is_paused,
        "paused_reason": queue.paused_reason if backlog.is_paused else "",
        "resume_at": queue.resume_at if backlog.is_paused else None,
        "problem": _problem(backlog),
        "ready": backlog.ready,
        "oldest_wait": None if wait is None else wait.total_seconds(),
        "running": backlog.running,
        "workers": [worker.worker_id for worker in backlog.workers],
        "settings": _settings_of(queue),
    }


def _problem(backlog: Backlog) -> str:
    return backlog.problem or ("Jobs are ready, and no live worker takes them." if backlog.is_stuck else "")


def _settings_of(queue: Queue) -> dict[str, Any]:
    values = {name: getattr(queue, name) for name in SETTINGS}
    return {name: value.total_seconds() if isinstance(value, timedelta) else value for name, value in values.items()}


def _table(rows: list[dict[str, Any]]) -> str:
    problems = [f"{row['name']}: {row['problem']}" for row in rows if row["problem"]]
    return table(("QUEUE", "STATE", "READY", "RUNNING", "WORKERS", "TAGS"), map(_cells, rows), problems)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    state = " ".join(filter(None, ("paused" if row["is_paused"] else "", "problem" if row["problem"] else "")))
    ready = str(row["ready"]) if row["ready"] <= MOST_COUNTED else f"{MOST_COUNTED}+"
    most = row["settings"]["max_running"]
    running = str(row["running"]) if most is None else f"{row['running']} / {most}"
    tags = row["settings"]["tags"]
    words = " ".join(map(str, tags)) if isinstance(tags, list) else str(tags)
    return row["name"], state or "open", ready, running, str(len(row["workers"])), words


QUEUES = (
    "Look at the queues, pause, resume, declare and delete them. Without a command: list. Workers follow within two "
    "seconds." + CODES
)
_LIST = "Show each queue with its state, its jobs, its workers and its settings." + CODES
_PAUSE = (
    "Stop workers from taking jobs of a queue, or of all; running jobs go on. Exit codes: 0 done; 1 nothing was done: no "
    "such queue, or paused already; 2 wrong usage."
)
_RESUME = (
    "Let workers take jobs of a queue again, or of all. Exit codes: 0 done; 1 nothing was done: no such queue, or not "
    "paused; 2 wrong usage."
)
_DECLARE = (
    "Make sure that a queue exists, with these settings if it is new. A number may be 'none': no limit, or as another "
    "setting says. Exit codes: 0 the queue is as given; 1 it exists, keeps other settings than those given, and --upsert was "
    "not; 2 wrong usage, or a setting that cannot work."
)
_DELETE = (
    "Delete a queue. keep: its jobs stay, and if some are ready the queue is declared again with default settings "
    "within seconds; cancel: those that have not ended are cancelled, and running ones asked to stop; delete: so too, and "
    "all that do not run are deleted. A name that the settings or a task declare comes back when a worker starts. "
    "Exit codes: 0 done; 1 there is no such queue; 2 wrong usage."
)
