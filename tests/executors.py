"""Started executors, fed by the test itself, and gates at which their jobs wait for the test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Queue
from typing import Any

from asgiref.sync import sync_to_async

from django_jobs.context import ignore_progress
from django_jobs.outcomes import ClaimedJob, Outcome
from django_jobs.worker.deadlines import Deadlines
from django_jobs.worker.execution import make_runner
from django_jobs.worker.executors.event_loop import LoopExecutor
from django_jobs.worker.executors.threads import ThreadExecutor
from django_jobs.worker.middleware import Factory

from .attempts import claimed_job
from .processes import PATIENCE, wait_until
from .worker_tasks import do, do_async, doing

TIMEOUT = PATIENCE


class Threads:
    """A started executor, and what it told."""

    def __init__(self, size: int) -> None:
        self.outcomes: Queue[Outcome] = Queue()
        self.deaths: Queue[object] = Queue()
        # Its passes are the test's.
        self.deadlines = Deadlines()
        runner = make_runner([], ignore_progress)
        self.executor = ThreadExecutor(size, runner, self.outcomes.put, self.deaths.put, self.deadlines)
        self.executor.start()

    def outcome(self) -> Outcome:
        return self.outcomes.get(timeout=TIMEOUT)

    def run(self, body: Callable[..., Any]) -> Outcome:
        """Run a job to its end."""
        self.executor.submit(claimed_job(do, doing(body)))
        return self.outcome()

    def begin(self, body: Callable[..., Any], task: Any = do) -> ClaimedJob:
        """Submit a job, and return it."""
        job = claimed_job(task, doing(body))
        self.executor.submit(job)
        return job

    def end(self) -> None:
        self.executor.stop()
        for thread in self.executor._threads:
            thread.join(TIMEOUT)


class Gate:
    """A place in a job: the test waits until the job is there, and lets it go on."""

    def __init__(self) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        """Called by the job. It is in Python code again and again, so that an interrupt gets in."""
        self._reached.set()
        deadline = time.monotonic() + TIMEOUT
        while not self._opened.is_set() and time.monotonic() < deadline:
            # Not without a pause: it would keep the interpreter from those that the test waits for.
            time.sleep(0.001)

    def wait(self) -> None:
        assert self._reached.wait(TIMEOUT)

    def open(self) -> None:
        self._opened.set()


class Loop:
    """A started executor, and what it told."""

    def __init__(self, factories: Sequence[Factory] = ()) -> None:
        self.outcomes: Queue[Outcome] = Queue()
        self.deaths: Queue[object] = Queue()
        runner = make_runner(list(factories), ignore_progress)
        # Its passes are the test's.
        self.deadlines = Deadlines()
        self.executor = LoopExecutor(100, runner, self.outcomes.put, self.deaths.put, self.deadlines)
        self.executor.start()

    def outcome(self) -> Outcome:
        return self.outcomes.get(timeout=TIMEOUT)

    def begin(self, body: Callable[..., Awaitable[Any]], task: Any = do_async) -> ClaimedJob:
        """Submit a job, and return it."""
        job = claimed_job(task, doing(body))
        self.executor.submit(job)
        return job

    def run(self, body: Callable[..., Awaitable[Any]]) -> Outcome:
        """Run a job to its end."""
        self.begin(body)
        return self.outcome()

    def settle(self) -> None:
        """Wait until what follows the jobs behind their outcomes is done too."""
        wait_until(lambda: not self.executor._tasks, timeout=TIMEOUT)

    @contextmanager
    def busy_thread(self) -> Iterator[None]:
        """Have a job keep the thread of synchronous code busy meanwhile."""
        busy, free = threading.Event(), threading.Event()

        def occupy() -> None:
            busy.set()
            free.wait(TIMEOUT)

        self.begin(sync_to_async(occupy))
        assert busy.wait(TIMEOUT)
        yield
        free.set()

    def end(self) -> None:
        self.executor.stop()
        self.executor._thread.join(TIMEOUT)


class AsyncGate:
    """A place where a coroutine waits until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened: asyncio.Event | None = None

    async def __call__(self) -> None:
        self._opened, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self.reached.set()
        await self._opened.wait()

    def wait(self) -> None:
        assert self.reached.wait(TIMEOUT)

    def open(self) -> None:
        assert self._opened is not None
        self._loop.call_soon_threadsafe(self._opened.set)
