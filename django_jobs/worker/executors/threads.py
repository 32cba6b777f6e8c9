"""Plain functions, in a fixed number of threads fed by one queue.

The exchange puts claimed jobs in; each thread takes the next when it is free. A running job is interrupted by raising an
exception in its thread, which reaches Python code at its next step, and C code when it returns.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from ...compat import InvalidTaskBackend, task_backends
from ...exceptions import Interrupt, JobTimeout
from ...outcomes import ClaimedJob, Outcome
from ..deadlines import Deadlines
from ..execution import Runner
from ..sessions import Sessions
from ..window import TimedWindow

Done = Callable[[Outcome], None]


class _ThreadWindow(TimedWindow):
    """When the job of one thread may be interrupted, and by what."""

    def __init__(self, deadlines: Deadlines) -> None:
        super().__init__(deadlines)
        # Guards ``job`` and ``request`` between this thread, the exchange and the deadlines, so that an interrupt meant
        # for one job never reaches the next one on the same thread. Reentrant, because it can tell its owner.
        self._lock = threading.RLock()
        self._job: ClaimedJob | None = None
        self._request: type[Interrupt] | None = None
        self._thread_id = 0

    def open(self, job: ClaimedJob) -> None:
        with self._lock:
            # Before an interrupt can get in: what wakes the deadlines must be whole.
            if job.timeout is not None or self._deadline is not None:
                self._start_clock(job)
            self._job, self._request = job, None
            self._thread_id = threading.get_ident()

    def close(self) -> None:
        while True:
            try:
                if self._deadline is not None:
                    self._stop_clock()
                with self._lock:
                    self._job = None
                    if self._request is not None:
                        # One that has been set and not yet raised must not hit what comes after.
                        _set_exception(self._thread_id, None)
                break
            except Interrupt:
                continue
        # Python promises nothing about an exception between taking the lock and the block that gives it back.
        while self._lock._is_owned():  # type: ignore[attr-defined]
            self._lock.release()
        if self._deadline is not None:
            self._deadlines.forget(self)

    def asked_to_stop(self) -> Interrupt | None:
        if self._request is not None:
            return self._request()
        return JobTimeout() if self.is_out_of_time else None

    def interrupt(self, ids: Collection[int], reason: type[Interrupt]) -> None:
        """Raise ``reason`` in the thread if it runs one of these jobs. Called by the exchange thread."""
        with self._lock:
            if self._job is not None and self._job.id in ids:
                self._request_stop(reason)

    def expire(self) -> None:
        with self._lock:
            # The job whose deadline it was may have ended, and the next one begun.
            if self._job is not None and self.is_out_of_time:
                self._request_stop(JobTimeout)

    def _request_stop(self, reason: type[Interrupt]) -> None:
        # Only the first counts: a second one would hit what the job does about the first.
        if self._request is None:
            self._request = reason
            _set_exception(self._thread_id, reason)


class ThreadExecutor:
    """``size`` threads. ``done`` is called in the job's thread with each outcome."""

    def __init__(
        self,
        size: int,
        runner: Runner,
        done: Done,
        on_death: Callable[[ThreadExecutor], None],
        deadlines: Deadlines,
    ) -> None:
        self.size = size
        self._runner = runner
        self._done = done
        self._on_death = on_death
        self._inbox: SimpleQueue[ClaimedJob | None] = SimpleQueue()
        self._windows = [_ThreadWindow(deadlines) for _ in range(size)]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for number, window in enumerate(self._windows, start=1):
            name = f"django_jobs thread {number}"
            thread = threading.Thread(target=self._work, args=(window,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def submit(self, job: ClaimedJob) -> None:
        self._inbox.put(job)

    def take_back(self) -> list[ClaimedJob]:
        """Return the jobs that no thread has begun, in order; they are not run."""
        taken: list[ClaimedJob | None] = []
        with suppress(Empty):
            while True:
                taken.append(self._inbox.get_nowait())
        for _ in range(taken.count(None)):
            # The order to stop stands.
            self._inbox.put(None)
        return [job for job in taken if job is not None]

    def interrupt(self, ids: Collection[int], reason: type[Interrupt]) -> None:
        """Ask these jobs to stop, those of them that are running here."""
        for window in self._windows:
            window.interrupt(ids, reason)

    def stop(self) -> None:
        """Let each thread end after its job. Does not wait: a job may never end."""
        for _ in self._windows:
            self._inbox.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the end of the threads, at most so many seconds."""
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def waiting(self) -> int:
        """How many jobs no thread has begun."""
        return self._inbox.qsize()

    @property
    def is_alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def _work(self, window: _ThreadWindow) -> None:
        stopped = False
        try:
            sessions = Sessions()
            surroundings = _warm_context()
            while (job := self._inbox.get()) is not None:
                # A copy for each job: context variables that one sets are not seen by the next.
                surroundings.copy().run(self._run, job, window, sessions)
            stopped = True
            connections.close_all()
        finally:
            if not stopped:
                self._on_death(self)

    def _run(self, job: ClaimedJob, window: _ThreadWindow, sessions: Sessions) -> None:
        outcome: Outcome | None = None
        try:
            sessions.prepare()
            try:
                outcome = self._runner.execute(job, window)
            finally:
                # Language and time zone are context variables, which the copy of the context takes with it.
                sessions.put_right()
        finally:
            # Also when the thread dies of what the job has left behind.
            if outcome is not None:
                self._done(outcome)
                # Its exception holds this frame; the two would keep all that the job held until the next garbage collection.
                del outcome


def _warm_context() -> Context:
    """Return this thread's context with the caches and task backends made, so that all jobs share them."""
    # One that cannot be made is the trouble of the jobs that use it.
    for alias in settings.CACHES:
        with suppress(InvalidCacheBackendError, ImproperlyConfigured, ImportError):
            caches[alias]
    for alias in task_backends.settings:
        with suppress(InvalidTaskBackend, ImportError):
            task_backends[alias]
    return copy_context()


def _set_exception(thread_id: int, exception: type[Interrupt] | None) -> None:
    """Raise ``exception`` in a thread at its next bytecode; None takes back one that is not raised yet.

    CPython's ``PyThreadState_SetAsyncExc``; without effect on a thread that has ended.
    """
    value = ctypes.py_object(exception) if exception is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), value)
