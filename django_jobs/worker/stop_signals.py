"""The signals that stop a worker, told to it in a thread of their own.

A handler of Python runs between any two steps of the main thread, also while that holds the lock of the very event
that the handler would set, and waits for it for ever. Here the handlers do nothing, and the interpreter writes the
number of each signal into a pipe.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

logger = logging.getLogger("django_jobs")

# Those that a terminal or a service manager sends to all processes at once.
_HELD_UP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


@contextmanager
def held_up() -> Iterator[None]:
    """Start a process inside: signals reach it once it says ``let_through()``, and do not end it while it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_UP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Say, in the main thread of a process that was started ``held_up()``, that it hears signals from now on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_UP)


def stacks() -> str:
    """Return the stack of every thread of this process as text.

    By Python's own means: ``faulthandler`` would do it also while C code holds the interpreter, but looks at threads that
    run on meanwhile, and sometimes kills the process.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )


class Stoppable(Protocol):
    def request_stop(self) -> None: ...
    def hurry(self) -> None: ...


class StopSignals(threading.Thread):
    """Lets the first signal of these stop the worker, and the second, or SIGQUIT, hurry it. Made in the main thread.

    SIGQUIT has the stacks logged, also where it is none of these.
    """

    def __init__(self, worker: Stoppable, numbers: Collection[int]) -> None:
        super().__init__(name="django_jobs signals", daemon=True)
        self._worker = worker
        self._numbers = frozenset(numbers)
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in {*numbers, signal.SIGQUIT}:
            signal.signal(number, _do_nothing)

    def run(self) -> None:
        heard = 0
        while True:
            # Signals of others come this way too.
            for number in os.read(self._read, 512):
                if number == signal.SIGQUIT:
                    logger.warning("Process %s was asked for its stacks.\n%s", os.getpid(), stacks())
                if number in self._numbers:
                    heard += 1
                    (self._worker.hurry if heard > 1 or number == signal.SIGQUIT else self._worker.request_stop)()


def _do_nothing(number: int, frame: object) -> None:
    """Let the interpreter take note of a signal."""
