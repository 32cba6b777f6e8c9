"""The processes of the demo: the web server and the worker, their logs, and their end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

# In the environment of every process of the demo, with the directory of its files.
MARKER = "SHOP_DEMO"
# A worker lets its running jobs finish for 25 seconds.
PATIENCE = 40.0


class ChildEnded(RuntimeError):
    """A process that the demo needs has ended by itself."""


class Children:
    """Processes of ``manage.py`` that live as long as the ``with`` block; their output goes to log files."""

    def __init__(self, root: Path, logs: Path) -> None:
        self._root = root
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes.values()):
            process.terminate()
        deadline = time.monotonic() + PATIENCE
        for process in self._processes.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()

    def start(self, command: str, *arguments: str) -> None:
        """Start a command of ``manage.py``."""
        with self._log(command).open("wb") as log:
            self._processes[command] = subprocess.Popen(
                [sys.executable, "manage.py", command, *arguments],
                cwd=self._root,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C at the terminal is for the demo, which then stops the others in their order.
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise ChildEnded, with the end of its log, if one of the processes has ended."""
        for command, process in self._processes.items():
            if process.poll() is not None:
                end = "\n".join(self._log(command).read_text(errors="replace").splitlines()[-30:])
                raise ChildEnded(f"{command} ended with exit code {process.returncode}. The end of its log:\n{end}")

    def wait_for_interrupt(self, meanwhile: Callable[[], None]) -> None:
        """Call ``meanwhile`` twice a second until Ctrl-C. Raise ChildEnded if one of the processes ends before."""
        with suppress(KeyboardInterrupt):
            while True:
                self.check()
                meanwhile()
                time.sleep(0.5)

    def _log(self, command: str) -> Path:
        return self._logs / f"{command}.log"


def end_leftovers(files: str) -> None:
    """End the processes of an earlier demo with the same files, which was killed before it could do so."""
    leftovers = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARKER) == files:
                process.send_signal(signal.SIGTERM)
                leftovers.append(process)
    for process in psutil.wait_procs(leftovers, timeout=5)[1]:
        with suppress(psutil.Error):
            process.kill()


def free_port(preferred: int) -> int:
    """Return the preferred port of this machine, or a free one if somebody listens there."""
    for port in (preferred, 0):
        with socket.socket() as probe, suppress(OSError):
            # As the web server does: a port is free although connections of an ended server still linger on it.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            return found
    raise OSError("No port is free.")
