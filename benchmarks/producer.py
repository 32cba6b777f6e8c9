"""This end of a peer's producing child process; the protocol and the other end are ``peers/producing.py``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .environments import ROOT


class PeerFailed(Exception):
    """A peer did not do what it was asked to; the message has what it said."""


class Producer:
    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def call(self, name: str, **arguments: Any) -> Any:
        """Have the child do something and return its answer. Raise PeerFailed with its traceback."""
        self.send(name, **arguments)
        return self.answer()

    def send(self, name: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"call": name, "with": arguments}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the answer to what was sent."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(f"its producer ended: {last_line(self._log)}")
        reply = json.loads(line)
        if "error" in reply:
            self._log.open("a").write(reply["error"])
            raise PeerFailed(reply["error"].strip().splitlines()[-1])
        return reply["answer"]

    def enqueue_many(self, job: str, count: int) -> float:
        """Enqueue jobs in bulk; return how many seconds it took."""
        times = self.call("bulk", job=job, count=count)
        return float(times["ended"] - times["begun"])


@contextmanager
def producing(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[Producer]:
    """Start a child, yield it, and wait for its end."""
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield Producer(process, log)
        except BaseException:
            process.kill()
            raise


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
