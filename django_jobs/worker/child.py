"""The entry of a worker process that a supervisor has started: ``python -m django_jobs.worker.child``.

Its standard input is a socket to the supervisor. The supervisor writes one line of JSON (what to be), then the
commands ``stop`` and ``hurry``; the child writes ``pulse``, ``due`` and ``drained``. When the socket ends, the supervisor
is dead, and the child drains. Signals of a terminal reach the supervisor, which passes them on in its own way; SIGTERM
sent to the child alone stops it gracefully, and the supervisor starts another. SIGQUIT has the child log its
stacks and go on.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from .ending import end_process
from .link import Link
from .stop_signals import StopSignals, let_through

# Not at each turn: a busy worker turns a thousand times a second.
_PULSE_EVERY = 0.5
_EXIT_CANNOT_START = 2
# How long (seconds) a thread that computes may go on when another wants to: a fifth of Python's default, because the
# exchange has to take its turns while all threads run jobs.
_SWITCH_INTERVAL = 0.001


def main() -> None:
    line = socket.socket(fileno=os.dup(0))
    # The job's code must not read the supervisor's commands.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    messages = _lines(line)
    told = json.loads(next(messages))
    _become(told)

    import django

    django.setup()
    end_process(_work(told, line, messages))


def _become(told: dict[str, Any]) -> None:
    sys.path[:] = told["sys_path"]
    if told["python_path"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = told["python_path"]


def _work(told: dict[str, Any], line: socket.socket, messages: Iterator[str]) -> int:
    from ..exceptions import JobsError
    from ..logs import configure_logging
    from .options import WorkerOptions
    from .worker import Worker

    options = WorkerOptions.from_json(told["options"])
    configure_logging(options.log_format, told["verbosity"])
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        worker = Worker.supervised(options, told["worker_id"], told["supervisor"], _SocketLink(line))
        _handle_signals(worker)
        worker.start()
    except JobsError as error:
        logging.getLogger("django_jobs").error("Worker %s cannot start: %s", told["worker_id"], error)
        return _EXIT_CANNOT_START
    # The commands are read in a thread: the main thread waits for the end, and runs the signal handlers.
    Commands(worker, messages).start()
    worker.wait()
    return worker.stop()


def _handle_signals(worker: Any) -> None:
    # Ctrl-C and Ctrl-\ reach the whole process group; what they mean is the supervisor's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    StopSignals(worker, [signal.SIGTERM]).start()
    let_through()


def _lines(line: socket.socket) -> Iterator[str]:
    buffer = b""
    while True:
        try:
            data = line.recv(65536)
        except OSError:
            return
        if not data:
            return
        buffer += data
        while b"\n" in buffer:
            text, buffer = buffer.split(b"\n", 1)
            yield text.decode()


class Commands(threading.Thread):
    """Reads the supervisor's commands; the end of the line means that the supervisor is dead."""

    def __init__(self, worker: Any, messages: Iterator[str]) -> None:
        super().__init__(name="django_jobs commands", daemon=True)
        self._worker = worker
        self._messages = messages

    def run(self) -> None:
        for message in self._messages:
            if message == "hurry":
                self._worker.hurry()
            else:
                self._worker.request_stop()
        if not self._worker.is_stopping:
            logging.getLogger("django_jobs").error("The supervisor is gone; worker %s drains.", self._worker.worker_id)
        self._worker.request_stop()


class _SocketLink(Link):
    """What the child tells its supervisor. A full or broken socket is no reason to stop working."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._pulsed_at = 0.0

    def pulse(self) -> None:
        now = time.monotonic()
        if now >= self._pulsed_at + _PULSE_EVERY:
            self._pulsed_at = now
            self._say(b"pulse\n")

    def hint_due(self) -> None:
        self._say(b"due\n")

    def say_drained(self) -> None:
        self._say(b"drained\n")

    def _say(self, message: bytes) -> None:
        with suppress(OSError):
            self._line.send(message, socket.MSG_DONTWAIT)


if __name__ == "__main__":
    main()
