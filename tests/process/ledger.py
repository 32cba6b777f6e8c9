"""What jobs tell the tests, and how tests hold jobs: two kinds of files in one directory.

The ledger has one line for each event. Each is one write to a file opened for appending, so that processes do not
mix their lines, and what was written survives the writer's kill. A gate is a file: a job waits until it is there.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

VARIABLE = "JOBS_TEST_LEDGER"


class Entry(NamedTuple):
    """One event of a job. ``at`` is in seconds by the machine's monotonic clock, the same in all processes."""

    event: str
    job_id: int
    attempt: int
    pid: int
    at: float


def write(event: str, job_id: int | None, attempt: int) -> None:
    """Write one line. Called in workers."""
    line = f"{event} {job_id} {attempt} {os.getpid()} {time.monotonic()}\n"
    ledger = os.open(_directory() / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, line.encode())
    finally:
        os.close(ledger)


def gate_is_open(name: str) -> bool:
    return (_directory() / f"{name}.gate").exists()


def _directory() -> Path:
    return Path(os.environ[VARIABLE])


class Ledger:
    """The tests' side."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.env = {VARIABLE: str(directory)}

    def open_gate(self, name: str = "gate") -> None:
        (self._directory / f"{name}.gate").touch()

    def entries(self, event: str | None = None, job: object = None) -> list[Entry]:
        """Return the lines of this event and this job (an id or a TaskResult), in the order of time."""
        try:
            text = (self._directory / "ledger").read_text()
        except FileNotFoundError:
            return []
        job_id = None if job is None else int(getattr(job, "id", job))
        entries = [_parse(line) for line in text.splitlines()]
        found = [entry for entry in entries if event in (None, entry.event) and job_id in (None, entry.job_id)]
        return sorted(found, key=lambda entry: entry.at)

    def count(self, event: str, job: object = None) -> int:
        return len(self.entries(event, job))

    def most_at_once(self) -> int:
        """Return how many jobs were between "begin" and "end" at the same moment, at the most."""
        now = most = 0
        for entry in self.entries():
            now += {"begin": 1, "end": -1}.get(entry.event, 0)
            most = max(most, now)
        return most

    def times_run(self) -> Counter[int]:
        """Return how often each job came to its end."""
        return Counter(entry.job_id for entry in self.entries("end") + self.entries("ran"))


def _parse(line: str) -> Entry:
    event, job_id, attempt, pid, at = line.split()
    return Entry(event, int(job_id), int(attempt), int(pid), float(at))
