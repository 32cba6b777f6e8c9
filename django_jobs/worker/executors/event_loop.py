"""``async def`` functions, on one event loop in a thread of its own.

Synchronous code that such jobs call through ``sync_to_async``, the ORM for one, runs in asgiref's single thread, with one
connection for each database; with a plain middleware, in a thread for each job. A running job is interrupted by cancelling
its coroutine.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

from ...exceptions import Interrupt, JobInterrupted, JobTimeout
from ...outcomes import ClaimedJob, Outcome
from ..deadlines import Deadlines
from ..execution import Runner
from ..sessions import Sessions
from ..window import TimedWindow

logger = logging.getLogger("django_jobs")

# How long jobs that the loop's end cancels, and the closing of connections, may take (seconds).
_CLEAN_UP_GRACE = 1.0


class _TaskWindow(TimedWindow):
    """Whether one coroutine has been asked to stop. ``on_expiry`` is called in the thread of the deadlines."""

    def __init__(self, deadlines: Deadlines, on_expiry: Callable[[_TaskWindow], None]) -> None:
        super().__init__(deadlines)
        self.request: type[Interrupt] | None = None
        self.has_begun = False
        self._on_expiry = on_expiry

    def open(self, job: ClaimedJob) -> None:
        if self.request is not None:
            raise self.request()
        self._start_clock(job)

    def close(self) -> None:
        self._stop_clock()
        if self._deadline is not None:
            self._deadlines.forget(self)

    def asked_to_stop(self) -> Interrupt | None:
        if self.request is not None:
            return self.request()
        return JobTimeout() if self.is_out_of_time else None

    def expire(self) -> None:
        self._on_expiry(self)


class LoopExecutor:
    """One event loop. The caller keeps to ``size`` jobs; ``done`` is called in the loop's thread."""

    def __init__(
        self,
        size: int,
        runner: Runner,
        done: Callable[[Outcome], None],
        on_death: Callable[[LoopExecutor], None],
        deadlines: Deadlines,
    ) -> None:
        self.size = size
        self._runner = runner
        self._done = done
        self._on_death = on_death
        self._deadlines = deadlines
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._running: dict[int, tuple[asyncio.Task[None], _TaskWindow]] = {}
        # Those that run, and those that put things right behind a job.
        self._tasks: set[asyncio.Task[None]] = set()
        # Of asgiref's thread.
        self._sessions = Sessions()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="django_jobs event loop", daemon=True)

    def start(self) -> None:
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        self._thread.start()

    def submit(self, job: ClaimedJob) -> None:
        # Each job gets a copy of this moment's context, so that variables that one sets are its own.
        self._tell(self._begin, job, context=copy_context())

    def interrupt(self, ids: Collection[int], reason: type[Interrupt]) -> None:
        """Ask these jobs to stop, those of them that are running here."""
        self._tell(self._cancel, set(ids), reason)

    def stop(self) -> None:
        """End the loop. Jobs that are still running on it are abandoned."""
        self._stopping = True
        self._tell(self._stop.set)

    def _tell(self, call: Callable[..., object], *args: Any, context: Context | None = None) -> None:
        # A loop that has ended, or died, refuses: there is nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args, context=context)

    def join(self, timeout: float) -> None:
        """Wait for the end of the loop, at most so many seconds."""
        self._thread.join(timeout)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _work(self) -> None:
        life = self._loop.create_task(self._live())
        try:
            while not life.done():
                self._run_until(life)
        finally:
            if not self._stopping:
                self._on_death(self)
            self._loop.close()

    def _run_until(self, life: asyncio.Task[None]) -> None:
        try:
            self._loop.run_until_complete(life)
        except (SystemExit, KeyboardInterrupt) as error:
            # asyncio ends the loop when a task that a job has started raises these; whoever awaits it hears of it too.
            logger.error("A coroutine of a job raised %r; the event loop goes on.", error)

    async def _live(self) -> None:
        await sync_to_async(self._sessions.prepare)()
        await self._stop.wait()
        await self._clean_up()

    def _begin(self, job: ClaimedJob) -> None:
        window = _TaskWindow(self._deadlines, lambda window: self._tell(self._cancel_late, window, job.id))
        task = self._loop.create_task(self._run(job, window))
        self._running[job.id] = (task, window)
        self._keep(task)

    def _cancel(self, ids: set[int], reason: type[Interrupt]) -> None:
        for job_id in ids & set(self._running):
            self._stop_one(*self._running[job_id], reason)

    def _cancel_late(self, window: _TaskWindow, job_id: int) -> None:
        task, last = self._running.get(job_id, (None, None))
        # It may have ended meanwhile; what follows it is not the job's.
        if task is not None and last is window and window.is_out_of_time:
            self._stop_one(task, window, JobTimeout)

    def _stop_one(self, task: asyncio.Task[None], window: _TaskWindow, reason: type[Interrupt]) -> None:
        if window.request is None:
            window.request = reason
            # A coroutine that is cancelled before its first step would never tell its outcome.
            if window.has_begun:
                task.cancel()

    async def _run(self, job: ClaimedJob, window: _TaskWindow) -> None:
        if self._sessions.are_idle:
            self._hop(self._sessions.prepare)
            # Lets it get ahead of the job's own synchronous code.
            await asyncio.sleep(0)
        window.has_begun = True
        if self._runner.needs_thread:
            async with ThreadSensitiveContext():
                self._end(window, await self._runner.aexecute(job, window))
                await sync_to_async(connections.close_all)()
        else:
            self._end(window, await self._runner.aexecute(job, window))
            self._hop(self._put_right)

    def _end(self, window: _TaskWindow, outcome: Outcome) -> None:
        # From here on no request to stop can cut off what comes after the job.
        _, last = self._running.get(outcome.job.id, (None, None))
        if last is window:
            del self._running[outcome.job.id]
        self._done(outcome)

    def _hop(self, call: Callable[[], None]) -> None:
        """Have asgiref's thread do this in its turn. Not awaited: the synchronous code of a job may take long there."""
        self._keep(self._loop.create_task(sync_to_async(call)()))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _put_right(self) -> None:
        # Between whole pieces of synchronous code: what is open now was left open.
        self._sessions.put_right()
        self._sessions.prepare()

    async def _clean_up(self) -> None:
        for task, window in list(self._running.values()):
            window.request = window.request or JobInterrupted
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLEAN_UP_GRACE)
        # Last, when no job opens a connection any more.
        self._hop(self._sessions.close)
        await asyncio.wait(self._tasks, timeout=_CLEAN_UP_GRACE)
