"""``manage.py prunejobs``: delete finished jobs, from cron or by hand."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from django_jobs import conf
from django_jobs.models import Job, Queue
from django_jobs.models.database import from_now
from django_jobs.models.job_queryset import JobQuerySet
from django_jobs.models.job_scopes import PRUNE_BATCH
from django_jobs.states import FINISHED

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# Before the calendars of databases begin, they answer with errors of their own.
_LONGEST_AGE = timedelta(days=365 * 200)


def parse_age(text: str) -> timedelta:
    """Return the age that ``7d``, ``12h``, ``30m``, ``45s``, ``2w`` or a number of seconds means."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text.strip())
    if not match:
        raise CommandError(f"--older-than {text!r} is no age. Write a number with s, m, h, d or w after it, as in 7d.")
    try:
        age = timedelta(**{_UNITS[match[2] or "s"]: float(match[1])})
    except OverflowError:
        age = timedelta.max
    if age > _LONGEST_AGE:
        raise CommandError(f"--older-than {text!r} is too long an age.")
    return age


class Command(BaseCommand):
    help = (
        "Delete finished jobs with their results and attempts. Unfinished jobs are never touched. Deletes in batches, "
        "a transaction each; safe to run while workers run, and twice at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            default="7d",
            metavar="AGE",
            help="Only jobs that finished longer ago than this: 45s, 30m, 12h, 7d, 2w. Default: 7d.",
        )
        states = [state.value for state in FINISHED]
        parser.add_argument(
            "--state", action="append", choices=states, help="Only jobs in this state. Repeatable; default: all three."
        )
        parser.add_argument("--queue", action="append", metavar="NAME", help="Only jobs of this queue. Repeatable.")
        parser.add_argument("--task", action="append", metavar="PATH", help="Only jobs of this task. Repeatable.")
        parser.add_argument("--limit", type=int, metavar="N", help="Delete at most this many jobs.")
        parser.add_argument(
            "--batch-size", type=int, default=PRUNE_BATCH, metavar="N", help=f"Jobs per DELETE. Default: {PRUNE_BATCH}."
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Say how many jobs would be deleted; delete nothing."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for name in ("limit", "batch_size"):
            if options[name] is not None and options[name] < 1:
                raise CommandError(f"--{name.replace('_', '-')} must be at least 1, not {options[name]}.")
        try:
            self._prune(options)
        except Error as error:
            raise CommandError(f"The database {conf.database()!r} cannot be used: {str(error).strip()}") from error

    def _prune(self, options: dict[str, Any]) -> None:
        jobs = self._selected(options)
        limit = options["limit"]
        if options["dry_run"]:
            count = (jobs[:limit] if limit else jobs).count()
            self.stdout.write(f"Would delete {count} jobs.")
            return
        deleted = 0
        while limit is None or deleted < limit:
            batch = options["batch_size"] if limit is None else min(options["batch_size"], limit - deleted)
            pruned = jobs.prune(batch)
            deleted += pruned
            if not pruned:
                break
        self.stdout.write(f"Deleted {deleted} jobs.")

    def _selected(self, options: dict[str, Any]) -> JobQuerySet:
        self._refuse_unknown("--queue", options["queue"], Queue.objects.values_list("name", flat=True))
        jobs: JobQuerySet = Job.objects.prunable().filter(finished_at__lt=from_now(-parse_age(options["older_than"])))
        if options["state"]:
            jobs = jobs.filter(state__in=options["state"])
        if options["queue"]:
            jobs = jobs.filter(queue_name__in=options["queue"])
        if options["task"]:
            jobs = jobs.filter(task_path__in=options["task"])
        return jobs

    def _refuse_unknown(self, flag: str, names: list[str] | None, known: Any) -> None:
        known = set(known)
        for name in names or []:
            if name not in known:
                suggestion = conf.closest(name, known)
                hint = f" Did you mean {suggestion!r}?" if suggestion else ""
                raise CommandError(f"{flag} {name!r}: there is no such queue.{hint}")
