"""The fleet: ``runworker`` commands as an init system keeps them, started again when they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
FLAGS = (
    "--processes=2", "--concurrency=4", "--async-concurrency=20", "--heartbeat-interval=0.5", "--heartbeat-timeout=3",
    "--poll-interval=0.5", "--shutdown-timeout=2",
)  # fmt: skip
# The longest that a job of a dead worker may have to wait: the lease, and the five seconds that are promised.
RESCUED_WITHIN = 3 + 5


class Fleet:
    """``size`` commands. ``started`` counts how many were started in all."""

    def __init__(self, size: int, env: Mapping[str, str], log: Path) -> None:
        self.started = 0
        # The soak tells its own sessions from those of the workers by their name.
        self._env = {**os.environ, **env, "PYTHONUNBUFFERED": "1", "PGAPPNAME": "worker"}
        self._log = log
        self._commands: list[subprocess.Popen[bytes]] = []
        self._size = size
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="fleet", daemon=True)

    def __enter__(self) -> Fleet:
        self._keeper.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._keeper.join()
        self.stop()

    def _keep(self) -> None:
        while True:
            self._commands = [command for command in self._commands if command.poll() is None]
            for _ in range(self._size - len(self._commands)):
                self._start()
            if self._stopping.wait(0.2):
                return

    def _start(self) -> None:
        command = [sys.executable, "-m", "django", "runworker", *FLAGS]
        with self._log.open("ab") as log:
            output: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self._commands.append(subprocess.Popen(command, cwd=ROOT, env=self._env, start_new_session=True, **output))
        self.started += 1

    def stop(self) -> None:
        """Send SIGTERM to all, and wait; kill what has not ended after half a minute."""
        for process in self.processes():
            # One that is frozen hears nothing.
            with suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        for command in self._commands:
            command.terminate()
        until = time.monotonic() + 30
        for command in self._commands:
            try:
                command.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                for process in self.processes():
                    with suppress(psutil.Error):
                        process.kill()
                command.wait()

    def supervisors(self) -> list[psutil.Process]:
        found = []
        for command in self._commands:
            with suppress(psutil.Error):
                found.append(psutil.Process(command.pid))
        return found

    def workers(self) -> list[psutil.Process]:
        found = []
        for supervisor in self.supervisors():
            with suppress(psutil.Error):
                found += supervisor.children()
        return found

    def processes(self) -> list[psutil.Process]:
        return [*self.supervisors(), *self.workers()]
