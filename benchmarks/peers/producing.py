"""The producing side of a peer: a child process in the peer's environment that enqueues when it is told to.

It reads one request a line from standard input, ``{"call": name, "with": {...}}``, and answers each with one
line, ``{"answer": ...}`` or ``{"error": text}``. Both are JSON. Standard output of the peer itself goes to
standard error. ``producer.py`` is the other end.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any


class Producer:
    """What a child can do. Each peer says how it sets up and enqueues; jobs go by the names in ``bodies.py``.

    Times are seconds since the epoch. Only ``stamp`` and ``orm`` get an argument: their number.
    """

    packages: tuple[str, ...] = ()

    def versions(self) -> dict[str, str]:
        """Return the versions of Python and of the packages that matter."""
        known = {found.name.lower(): found.version for found in importlib.metadata.distributions()}
        return {"python": platform.python_version()} | {name: known.get(name, "a checkout") for name in self.packages}

    def setup(self) -> Any:
        """Make the tables."""
        raise NotImplementedError

    def enqueue(self, job: str, number: int) -> Any:
        """Enqueue one job with a commit of its own."""
        raise NotImplementedError

    def enqueue_many(self, job: str, count: int) -> Any:
        """Enqueue so many jobs the fastest way that the peer documents; those with an argument get their number."""
        raise NotImplementedError

    def one_by_one(self, job: str, count: int, at: float = 0.0) -> Any:
        """Enqueue jobs one after the other, from the moment ``at`` on; return when that began and ended."""
        time.sleep(max(0.0, at - time.time()))
        begun = time.time()
        for number in range(count):
            self.enqueue(job, number)
        return {"begun": begun, "ended": time.time()}

    def bulk(self, job: str, count: int) -> Any:
        begun = time.time()
        self.enqueue_many(job, count)
        return {"begun": begun, "ended": time.time()}

    def paced(self, job: str, count: int, interval: float) -> Any:
        """Enqueue one job every ``interval`` seconds; return the moments at which the calls returned."""
        returned = []
        for number in paced(count, interval):
            self.enqueue(job, number)
            returned.append(time.time())
        return returned


class AsyncProducer(Producer):
    """The same for a peer whose way to enqueue is a coroutine."""

    async def one_by_one(self, job: str, count: int, at: float = 0.0) -> dict[str, float]:
        await asyncio.sleep(max(0.0, at - time.time()))
        begun = time.time()
        for number in range(count):
            await self.enqueue(job, number)
        return {"begun": begun, "ended": time.time()}

    async def bulk(self, job: str, count: int) -> dict[str, float]:
        begun = time.time()
        await self.enqueue_many(job, count)
        return {"begun": begun, "ended": time.time()}

    async def paced(self, job: str, count: int, interval: float) -> list[float]:
        returned = []
        for number in paced(count, interval):
            await self.enqueue(job, number)
            returned.append(time.time())
        return returned


def paced(count: int, interval: float) -> Iterator[int]:
    """Yield 0, 1, 2 ... at a steady pace. It blocks: a producer's event loop has nothing else to do."""
    due = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, due - time.monotonic()))
        yield number
        due += interval


def arguments(job: str, number: int) -> tuple[int, ...]:
    """Return what a job is called with: its number, if it takes one."""
    return (number,) if job in ("stamp", "orm") else ()


def serve(producer: Producer, loop_factory: Any = None) -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = {"answer": _call(runner, producer, request)}
            except Exception:  # noqa: BLE001 - whatever it is, the other end shows it
                answer = {"error": traceback.format_exc(limit=-6)}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _call(runner: asyncio.Runner, producer: Producer, request: dict[str, Any]) -> Any:
    method = getattr(producer, request["call"])
    answer = method(**request["with"])
    return runner.run(answer) if inspect.iscoroutine(answer) else answer
