"""``manage.py runworker``: parse, resolve, run. See ``worker/supervisor.py`` and ``worker/worker.py``."""

from __future__ import annotations

import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_jobs import conf
from django_jobs.exceptions import JobsError
from django_jobs.logs import configure_logging
from django_jobs.worker.ending import end_process, is_kept
from django_jobs.worker.options import WorkerOptions, resolve_options
from django_jobs.worker.stop_signals import StopSignals
from django_jobs.worker.supervisor import Supervisor
from django_jobs.worker.worker import Worker

_SHORT = {"CONCURRENCY": "-c", "PROCESSES": "-p"}
# Options with a flag of another form than --name VALUE.
_OWN_FORM = ("TAGS", "NOTIFY", "LOG_FORMAT")


class Command(BaseCommand):
    help = (
        "Run jobs. Starts a supervisor with worker processes. The first SIGTERM or Ctrl-C lets running jobs finish, "
        "a second one, or SIGQUIT, gives them back at once; a worker that gets SIGQUIT logs the stacks of its threads. "
        "Exit codes: 0 all jobs that had begun were finished; 1 some were given back, or the worker could not start; 3 a "
        "part of the process died; 4 its lease was lost (with --processes 0)."
    )
    # What makes a worker unable to run is checked at its start, with a message of its own.
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        refuse, known = parser.error, [flag for action in parser._actions for flag in action.option_strings]

        def error(message: str) -> None:
            unknown = message.removeprefix("unrecognized arguments: ").split()[0].split("=")[0]
            meant = conf.closest(unknown, known) if message.startswith("unrecognized") else None
            refuse(f"{message}. Did you mean {meant}?" if meant else message)

        parser.error = error  # type: ignore[method-assign, assignment]
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "-q",
            "--queue",
            action="append",
            default=[],
            metavar="NAME",
            help="Take jobs of this queue: a name, a prefix with * (mail*), or !name to leave one out. Repeatable; "
            "default: all queues.",
        )
        parser.add_argument("--tag", action="append", metavar="TAG", help="A tag for this worker. Repeatable.")
        parser.add_argument("--burst", action="store_true", help="End when no job is ready any more.")
        parser.add_argument("--once", action="store_true", help="Run one job in each worker, if there is one, and end.")
        parser.add_argument("--no-notify", action="store_true", help="Do not listen for notifications; poll only.")
        parser.add_argument("--log-format", choices=["text", "json"], help=_help("LOG_FORMAT"))
        parser.add_argument(
            "--reload", action="store_true", help="Replace the workers when code changes (development)."
        )
        parser.add_argument("--show-config", action="store_true", help="Print each option with its source, and end.")
        for name, setting in conf.SETTINGS.items():
            if setting.is_worker_option and name not in _OWN_FORM:
                flags = [_SHORT[name]] if name in _SHORT else []
                flags.append("--" + name.lower().replace("_", "-"))
                parser.add_argument(*flags, type=setting.kind, metavar=setting.unit.upper(), help=_help(name))

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as a program of its own, which ends even if a job has left a thread behind."""
        code: Any = 0
        try:
            super().run_from_argv(argv)
        except SystemExit as end:
            if not is_kept():
                raise
            code = end.code
        if is_kept():
            end_process(code if isinstance(code, int) else 1)

    def handle(self, *args: Any, **given: Any) -> None:
        flags = {name: given.get(name.lower()) for name in conf.SETTINGS if conf.SETTINGS[name].is_worker_option}
        flags |= {"TAGS": given["tag"], "NOTIFY": False if given["no_notify"] else None}
        try:
            if given["show_config"]:
                self._show_config(flags)
                return
            options = resolve_options(flags, given["queue"], given["burst"], given["once"])
            configure_logging(options.log_format, given["verbosity"])
            code = self._run(options, given)
        except JobsError as error:
            raise CommandError(str(error)) from error
        if code:
            raise SystemExit(code)

    def _run(self, options: WorkerOptions, given: dict[str, Any]) -> int:
        if options.processes:
            return Supervisor(options, verbosity=given["verbosity"], reload=given["reload"]).run()
        if given["reload"]:
            raise CommandError("--reload needs a worker process: leave out --processes 0.")
        worker = Worker.alone(options)
        StopSignals(worker, [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]).start()
        return worker.run()

    def _show_config(self, flags: dict[str, Any]) -> None:
        for name, option in conf.worker_options(flags).items():
            unit = conf.SETTINGS[name].unit
            shown = f"{option.value} {unit}" if unit == "s" else f"{option.value}"
            self.stdout.write(f"{name:<20} {shown:<20} {option.source}")


def _help(name: str) -> str:
    setting = conf.SETTINGS[name]
    default = f" Default: {setting.default}{' s' if setting.unit == 's' else ''}." if setting.default != "" else ""
    return setting.sentence.replace("%", "%%") + default
