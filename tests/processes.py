"""Real processes in tests: start ``manage.py``, wait for what it does, and leave nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from django.conf import settings
from django.db.models import Q, QuerySet

from django_jobs.models import Worker
from django_jobs.states import WorkerState

MARKER = "JOBS_TEST_PROCESS"
# For what takes a moment on an idle machine and much longer on a busy one. No promise: those have bounds of their own.
PATIENCE = 30.0
T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, timeout: float = PATIENCE, message: str = "") -> T:
    """Call ``condition`` until it returns something true, and return that. Fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"Waited {timeout:g} s in vain{message and ': '}{message}; the last value was {value!r}.")
        time.sleep(0.01)


class Command:
    """A running ``manage.py`` command, in a process group of its own, with its output in a file."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "manage.py", *arguments],
                cwd=settings.ROOT,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.poll()

    def output(self) -> str:
        """Return all that the command and its children have written so far."""
        return self._log.read_text(errors="replace")

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the end of the command and return its exit code. Fail after ``timeout`` seconds."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"Process {self.pid} has not ended after {timeout:g} s:\n{self.output()}")

    def stop(self, timeout: float = PATIENCE) -> int:
        """Send SIGTERM, wait for the end and return the exit code."""
        self.terminate()
        return self.wait(timeout)


class RunWorker:
    """Starts ``manage.py runworker`` processes for one test; see the fixture ``runworker``.

    ``runworker("--concurrency=2", env={"NAME": "value"})`` returns a ``Command`` once ``workers`` of its
    processes run jobs. ``ready=False`` does not wait: for commands that are expected to end at once.
    """

    def __init__(self, env: Mapping[str, str], directory: Path) -> None:
        self._env = env
        self._directory = directory
        self.commands: list[Command] = []

    def __call__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        workers: int = 1,
        ready: bool = True,
        timeout: float = PATIENCE,
    ) -> Command:
        log = self._directory / f"runworker-{len(self.commands)}.log"
        command = Command(["runworker", *arguments], {**self._env, **(env or {})}, log)
        self.commands.append(command)
        if ready:
            wait_until(
                lambda: self._is_ready(command, workers), timeout=timeout, message=f"{workers} running worker(s)"
            )
        return command

    def _is_ready(self, command: Command, workers: int) -> bool:
        if command.returncode is not None:
            pytest.fail(f"runworker ended with {command.returncode} instead of running:\n{command.output()}")
        return workers_of(command).count() >= workers

    def close(self) -> None:
        for command in self.commands:
            command.wait()


def workers_of(command: Command) -> QuerySet[Worker]:
    """Return the workers that run jobs for a ``runworker`` command: its children, or the process itself."""
    running = Worker.objects.live().filter(kind="worker", state=WorkerState.RUNNING)
    supervisors = Worker.objects.live().filter(kind="supervisor", pid=command.pid)
    return running.filter(Q(pid=command.pid) | Q(supervisor__in=supervisors.values("worker_id")))


def new_marker() -> dict[str, str]:
    """Return a variable for the environment of processes that shall be found again, whoever started them."""
    return {MARKER: uuid.uuid4().hex}


def kill_marked_processes(marker: Mapping[str, str]) -> None:
    """Kill every process that has the marker in its environment, also those whose parent is gone or that are frozen."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARKER) == marker[MARKER]:
                process.send_signal(signal.SIGKILL)
