"""A section of ``manage.py jobs``, such as ``jobs queues``: what the sections have in common."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_aware, make_aware, make_naive

from django_jobs import conf
from django_jobs.exceptions import JobsError

Options = dict[str, Any]


class AddCommand(Protocol):
    """Makes a parser for a command with this name, call, description and other names."""

    def __call__(
        self, name: str, call: Callable[[Options], None], sentence: str, /, *aliases: str
    ) -> CommandParser: ...


# Exit codes.
NOTHING_DONE, USAGE = 1, 2
CODES = " Exit codes: 0 done; 1 nothing was done, with the reason on standard error; 2 wrong usage."


class Section:
    """Base of the sections: one method for each command, which prints with ``say``."""

    def __init__(self, command: BaseCommand) -> None:
        self._command = command

    def say(self, options: Options, told: Any, text: str) -> None:
        """Print ``told`` as JSON if that was asked for, or else the text, if there is any."""
        if options["json"]:
            self._command.stdout.write(json.dumps(told, indent=2, cls=DjangoJSONEncoder))
        elif text:
            self._command.stdout.write(text)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the models refuse, and a database that cannot be used, into a message and an exit code."""
    try:
        yield
    except JobsError as error:
        raise CommandError(str(error), returncode=USAGE) from error
    except Error as error:
        raise CommandError(f"The database {conf.database()!r} cannot be used: {str(error).strip()}") from error


def moment(text: str) -> datetime:
    """Parse a time for argparse; one without an offset is in the current time zone."""
    try:
        parsed = parse_datetime(text)
    except ValueError:
        parsed = None
    if parsed is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2030-01-31T08:00 or 2030-01-31T08:00+01:00")
    if settings.USE_TZ:
        return parsed if is_aware(parsed) else make_aware(parsed)
    return make_naive(parsed) if is_aware(parsed) else parsed


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], problems: Sequence[str] = ()) -> str:
    """Return the rows under their titles, in columns, and after an empty line the problems."""
    cells = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, *([""] if problems else []), *problems])
