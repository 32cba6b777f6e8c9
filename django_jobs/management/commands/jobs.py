"""``manage.py jobs``: parse, call, print. One method for each of its commands; what they do is elsewhere."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_jobs.bench.measures import MEASURES
from django_jobs.bench.report import as_json, as_table
from django_jobs.bench.run import Interrupted, Order, check_order, run_bench
from django_jobs.exceptions import JobsError
from django_jobs.management.queues import QUEUES, QueueCommands
from django_jobs.management.schedules import SCHEDULES, ScheduleCommands


class Command(BaseCommand):
    help = "Look at the queues, the schedules, and the database that they are in. Each command has a --help of its own."
    # Each command says itself what it lacks.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
        bench = self._add_command(commands, parser, "bench", self._bench, _BENCH)
        bench.add_argument("--jobs", type=int, default=Order.jobs, metavar="N", help=_JOBS)
        bench.add_argument("--repeat", type=int, default=Order.repeat, metavar="N", help=_REPEAT)
        bench.add_argument("--measure", action="append", metavar="NAME", help=_MEASURE)
        bench.add_argument("--json", action="store_true", help=_AS_JSON)
        self._add_section(commands, parser, "queues", QueueCommands(self), QUEUES)
        self._add_section(commands, parser, "schedules", ScheduleCommands(self), SCHEDULES)

    def _add_section(
        self,
        commands: Any,
        parser: CommandParser,
        name: str,
        calls: QueueCommands | ScheduleCommands,
        sentence: str,
    ) -> None:
        section = self._add_command(commands, parser, name, calls.list, sentence)
        section.add_argument("--json", action="store_true", help=_AS_JSON)
        under = section.add_subparsers(title="commands", metavar="COMMAND")

        def add(name: str, call: Callable[[dict[str, Any]], None], sentence: str, *aliases: str) -> CommandParser:
            command = self._add_command(under, parser, name, call, sentence, *aliases)
            # It may stand before the name too.
            command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=_AS_JSON)
            return command

        calls.add_to(add)

    def _add_command(
        self,
        commands: Any,
        parser: CommandParser,
        name: str,
        call: Callable[[dict[str, Any]], None],
        sentence: str,
        *aliases: str,
    ) -> CommandParser:
        """Add a command that takes Django's own options also after its name, as in ``jobs bench --settings=mine``."""
        brief = sentence.split(". ")[0] + "."
        command: CommandParser = commands.add_parser(name, aliases=aliases, help=brief, description=sentence)
        command.set_defaults(call=call)
        for action in parser._actions:
            if action.option_strings and action.dest not in ("help", "version"):
                again = copy.copy(action)
                # Without a default, so that it does not undo what stands before the name.
                again.default = again.help = argparse.SUPPRESS
                command._add_action(again)
        return command

    def handle(self, *args: Any, **options: Any) -> None:
        options["call"](options)

    def _bench(self, options: dict[str, Any]) -> None:
        say = self.stderr if options["json"] else self.stdout
        try:
            order = check_order(options["jobs"], options["repeat"], options["measure"])
            figured = run_bench(order, lambda line: say.write(line, lambda text: text))
        except Interrupted as error:
            raise CommandError(str(error), returncode=error.code) from error
        except JobsError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(as_json(figured), indent=2) if options["json"] else as_table(figured))
        if figured.failures:
            raise CommandError(f"No figures for: {', '.join(figured.failures)}.")


_BENCH = (
    "Measure enqueueing and running jobs on the project's own database. Your jobs are never touched: it works in a "
    "schema (PostgreSQL) or file (SQLite) of its own and removes it at the end. The middleware and the receivers of "
    "signals that the project has are part of what is measured: they hear of the bench's jobs. Takes about a minute. "
    "Exit codes: 0 all was measured; 1 a measure failed, or none could be taken; 130 ended by Ctrl-C."
)
_AS_JSON = "Print JSON, and nothing else to standard output."
_JOBS = f"Jobs to drain; other measures take as many or fewer. Default: {Order.jobs}."
_REPEAT = f"How often each measure is taken; medians are shown. Default: {Order.repeat}."
_MEASURE = f"Take only this measure: {', '.join(MEASURES)}. Repeatable; default: all."
