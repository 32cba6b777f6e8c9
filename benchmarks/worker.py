"""A peer's worker: its processes, what they use, and their end."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .environments import ROOT
from .producer import PeerFailed, last_line

STOP_TIMEOUT = 15.0  # seconds


@dataclass
class Worker:
    """The processes that were started and their children. Processor times are in seconds, memory in bytes."""

    started: list[psutil.Popen]
    log: Path
    # The most resident memory that was seen, by process.
    resident: dict[int, int] = field(default_factory=dict)

    def processes(self) -> list[psutil.Process]:
        """Return those of them that still live."""
        found: list[psutil.Process] = []
        for process in self.started:
            with suppress(psutil.Error):
                found += [psutil.Process(process.pid), *process.children(recursive=True)]
        return found

    def cpu(self) -> float:
        total = 0.0
        for process in self.processes():
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def look_at_memory(self) -> None:
        for process in self.processes():
            with suppress(psutil.Error):
                now = process.memory_info().rss
                self.resident[process.pid] = max(now, self.resident.get(process.pid, 0))

    @property
    def largest(self) -> int:
        """The most memory that one of the processes has had: the one that runs the jobs."""
        return max(self.resident.values(), default=0)

    def must_live(self) -> None:
        """Raise PeerFailed if one of the processes that were started has ended."""
        for process in self.started:
            if process.poll() is not None:
                raise PeerFailed(f"its worker ended with code {process.returncode}: {last_line(self.log)}")

    def stop(self) -> None:
        """Ask all to end, as a process manager does, and kill what is still there after STOP_TIMEOUT."""
        processes = self.processes()
        for process in self.started:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(processes, timeout=STOP_TIMEOUT)
        for survivor in alive:
            with suppress(psutil.Error):
                survivor.kill()
        psutil.wait_procs(alive, timeout=STOP_TIMEOUT)


@contextmanager
def working(commands: Sequence[list[str]], environment: Mapping[str, str], log: Path) -> Iterator[Worker]:
    """Start one process per command, yield them as one worker, and stop them."""
    worker = Worker([], log)
    with log.open("ab") as output:
        try:
            for command in commands:
                worker.started.append(
                    psutil.Popen(
                        command,
                        cwd=ROOT,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        # A Ctrl-C at the terminal reaches this program only, which then stops the worker.
                        start_new_session=True,
                    )
                )
            yield worker
        finally:
            worker.stop()
