"""A real PostgreSQL out of a Python wheel, for the tests and the demo; nothing has to be installed or running.

``python -m example_project.postgres run [--data DIR] [--fast] -- command ...`` runs a command with DATABASE_URL
set to a server that is started before it and stopped after it. ``running_postgres()`` is the same for
Python. The server itself is looked after by a process of its own, ``postgres_keeper.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

KEEPER = Path(__file__).with_name("postgres_keeper.py")


class PostgresFailed(RuntimeError):
    """The server could not be started; the message has the end of its log."""


@contextmanager
def running_postgres(data: Path | None = None, *, durable: bool = True) -> Iterator[str]:
    """Start a server, yield its DATABASE_URL, and stop it at the end, however this process ends.

    ``data`` is a directory that keeps the data for the next start; None throws it away. Without
    ``durable`` commits are not flushed to disk: faster, and safe as long as the machine itself lives.
    """
    command = [sys.executable, "-P", str(KEEPER)]
    command += ["--data", str(data.absolute())] if data else []
    command += [] if durable else ["--fast"]
    # In a session of its own: a Ctrl-C at the terminal must not take the server away from those who still use it.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as keeper:
        # Leaving the block closes the pipe to the keeper, which then stops the server, and waits for its end.
        yield _address(keeper)


def _address(keeper: subprocess.Popen[str]) -> str:
    assert keeper.stdout is not None
    answer = keeper.stdout.readline()
    if not answer:
        raise PostgresFailed("The embedded PostgreSQL did not start: its keeper ended without a word.")
    reply = json.loads(answer)
    if "error" in reply:
        raise PostgresFailed(f"The embedded PostgreSQL did not start. {reply['error']}")
    url: str = reply["url"]
    return url


def run(command: Sequence[str], data: Path | None, *, durable: bool) -> int:
    """Run ``command`` with DATABASE_URL set to a server of its own; return its exit code as a shell would."""
    received: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if child is not None and not (number == signal.SIGINT and _has_terminal()):
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    with running_postgres(data, durable=durable) as url:
        if received:
            return 128 + received[0]
        child = subprocess.Popen(command, env=os.environ | {"DATABASE_URL": url})
        code = child.wait()
    return code if code >= 0 else 128 - code


def _has_terminal() -> bool:
    """Say whether this process is in the foreground of a terminal, whose Ctrl-C the command hears by itself."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m example_project.postgres", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="run")
    running = commands.add_parser("run", help="run a command with DATABASE_URL set to an embedded PostgreSQL")
    running.add_argument("--data", type=Path, help="keep the data in this directory; without it they are thrown away")
    running.add_argument("--fast", action="store_true", help="do not flush commits to disk; for tests")
    running.add_argument("command", nargs=argparse.REMAINDER, help="the command, after --")
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("name a command to run after --")
    try:
        return run(command, options.data, durable=not options.fast)
    except (PostgresFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main())
