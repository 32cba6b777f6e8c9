"""A worker process: its parts and how they are joined, its start and its end.

``Worker`` is also the programmatic way to run jobs in a process of one's own::

    with Worker(queues=["mail"], concurrency=4):
        ...

Alone it renews its own lease and does the leader's duties, in threads; under a supervisor those are the
supervisor's, and a ``Link`` is the line to it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any

from django.db import Error, connections

from .. import signals
from ..context import Progress
from ..exceptions import JobsError
from ..models import Worker as WorkerRow
from ..outcomes import Outcome
from ..states import WorkerState
from . import identity
from .alone import services_of_one_alone
from .announcer import Announcer
from .capacity import Capacity
from .deadlines import Deadlines
from .duties import bring_up_jobs
from .exchange import Exchange
from .execution import make_runner
from .executors.event_loop import LoopExecutor
from .executors.threads import ThreadExecutor
from .leader import Leader
from .link import Link
from .middleware import load_factories
from .options import WorkerOptions, check_queues, declare_known_queues, declare_known_schedules, resolve_options
from .owner import Startable
from .preflight import check_database, explained_errors
from .service import Service, within
from .watch import Watch

logger = logging.getLogger("django_jobs")

# Exit codes of a worker process, and of runworker.
EXIT_OK, EXIT_UNFINISHED, EXIT_DIED, EXIT_LEASE_LOST = 0, 1, 3, 4

# How long jobs that were asked to stop get for it, threads without a job for their end, and the last writes (seconds).
_INTERRUPT_GRACE = _JOIN_GRACE = 1.0
_LAST_WRITES = 5.0


class Worker:
    """Claims jobs and runs them in this process, until it is stopped."""

    def __init__(self, queues: Iterable[str] = (), *, burst: bool = False, once: bool = False, **options: Any) -> None:
        """Take the worker options by their lower-case names; see ``conf.SETTINGS`` and ``WorkerOptions``."""
        flags = {name.upper(): value for name, value in options.items()}
        queues = (queues,) if isinstance(queues, str) else queues
        self._set_up(resolve_options(flags, queues, burst, once), link=None)

    @classmethod
    def supervised(cls, options: WorkerOptions, worker_id: str, supervisor: str, link: Link) -> Worker:
        """Return the worker of a child process, whose lease and duties are its supervisor's."""
        worker = cls.__new__(cls)
        worker._set_up(options, link, worker_id, supervisor)
        return worker

    @classmethod
    def alone(cls, options: WorkerOptions) -> Worker:
        """Return a worker with resolved options, for the process that runs it."""
        worker = cls.__new__(cls)
        worker._set_up(options, link=None)
        return worker

    def _set_up(
        self, options: WorkerOptions, link: Link | None, worker_id: str | None = None, supervisor: str = ""
    ) -> None:
        self.options = options
        self.worker_id = worker_id or options.worker_id or identity.make_worker_id()
        self.exit_code = EXIT_OK
        self.tags = identity.tags_of(self.worker_id, list(options.tags))
        self._supervisor = supervisor
        self._link = link or Link()
        self._state = WorkerState.STARTING
        self._stop_requested, self._hurry = threading.Event(), threading.Event()
        self._is_started = self._lease_lost = False
        factories = load_factories()
        self._announcer = Announcer(self._died)
        self._deadlines = Deadlines(self._died)
        runner = make_runner(factories, self._show_progress)
        self._threads = ThreadExecutor(options.concurrency, runner, self._done, self._died, self._deadlines)
        # Where each async def job needs a thread, and with it connections, there are no more of them than of others.
        at_once = options.concurrency if runner.needs_thread else options.async_concurrency
        at_once = min(at_once, options.async_concurrency)
        self._loop = LoopExecutor(at_once, runner, self._done, self._died, self._deadlines)
        self._capacity = Capacity(self._threads, self._loop, options.claim_ahead, options.kind)
        self._exchange = Exchange(
            self.worker_id, options, self._capacity, self._announcer, owner=self, tags=self.tags, on_death=self._died
        )
        self._alone: list[Service] = []
        if link is None:
            self._alone = services_of_one_alone(self.worker_id, options, self.on_lease_lost, self._died)
        self._watch = Watch([self._exchange, *self._alone], options, self._died)

    # Life

    def start(self) -> None:
        """Register the worker and begin to claim. Raise JobsError if it cannot start, or has been started before."""
        if self._state != WorkerState.STARTING:
            raise JobsError(f"Worker {self.worker_id} has been started before. Make another one.")
        check_database(uses_processes=False, concurrency=self.options.concurrency)
        with explained_errors():
            check_queues(self.options.queues)
            self._register()
            declare_known_queues()
            if self._alone:
                # Else its supervisor has done it.
                declare_known_schedules()
        self._state = WorkerState.RUNNING
        self._is_started = True
        parts: list[Startable] = [self._deadlines, self._threads, self._loop, self._announcer, self._exchange]
        for part in (*parts, *self._alone, self._watch):
            part.start()
        signals.send(signals.worker_started, WorkerRow, worker_id=self.worker_id)
        logger.info("Worker %s started: %s", self.worker_id, ", ".join(self.options.queues))
        connections.close_all()

    def run(self) -> int:
        """Work until somebody asks to stop, then shut down; return the exit code."""
        self.start()
        self.wait()
        return self.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until somebody asks the worker to stop. False: ``timeout`` seconds have passed."""
        return self._stop_requested.wait(timeout)

    def request_stop(self) -> None:
        """Ask the worker to stop. Safe in any thread and in signal handlers."""
        self._stop_requested.set()

    @property
    def is_stopping(self) -> bool:
        """Say whether somebody has asked the worker to stop."""
        return self._stop_requested.is_set()

    def hurry(self) -> None:
        """Ask the worker to stop without waiting for its jobs."""
        self._hurry.set()
        self._stop_requested.set()

    def stop(self, timeout: float | None = None) -> int:
        """Shut down: let running jobs finish for ``timeout`` seconds (default ``SHUTDOWN_TIMEOUT``), give the rest back.

        Return 0 if every job that had begun was finished, else a code that says what was not.
        """
        self._stop_requested.set()
        if not self._is_started:
            return self.exit_code
        # The claims first: a row that says that it stops is true, and the exchange may write it at any moment.
        self._is_started = self._exchange.is_claiming = False
        self._state = WorkerState.STOPPING
        signals.send(signals.worker_stopping, WorkerRow, worker_id=self.worker_id)
        if self._exchange.is_alive and not self._lease_lost:
            self._drain(self.options.shutdown_timeout if timeout is None else timeout)
        self._end()
        return self.exit_code

    def pause(self) -> None:
        """Claim nothing more until ``resume()``; running jobs go on, those that have not begun are given back."""
        if self._state == WorkerState.RUNNING:
            self._exchange.is_claiming = False
            self._state = WorkerState.PAUSED
            self._exchange.stop_claiming()

    def resume(self) -> None:
        """Claim again after ``pause()``."""
        if self._state == WorkerState.PAUSED:
            self._state = WorkerState.RUNNING
            self._exchange.resume_claiming()

    def stats(self) -> dict[str, Any]:
        """Return what the worker has done: attempts processed and failed, and jobs active now."""
        return {
            "worker_id": self.worker_id,
            "state": self._state.value,
            "processed": self._exchange.processed,
            "failed": self._exchange.failed,
            "active": len(self._exchange.held),
            "concurrency": self.options.concurrency,
        }

    def health(self) -> dict[str, dict[str, Any]]:
        """Return for each loop whether it lives, the seconds since its last pass and its last error."""
        loops = {service.name: service.health() for service in self._loops()}
        return loops | {"threads": {"alive": self._threads.is_alive}, "event loop": {"alive": self._loop.is_alive}}

    def _loops(self) -> Iterable[Service]:
        return (self._exchange, self._announcer, self._deadlines, *self._alone)

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Steps of the end

    def _drain(self, timeout: float) -> None:
        self._exchange.stop_claiming()
        if self.exit_code == EXIT_DIED:
            # What has not begun is given back. What has begun may be what killed the part: it stays with this worker, is
            # rescued from it as crashed, and so uses up its attempts.
            self._is_idle_within(_INTERRUPT_GRACE)
            return
        if self._is_idle_within(timeout, self._hurry):
            return
        self.exit_code = self.exit_code or EXIT_UNFINISHED
        logger.warning("Worker %s gives back what is still running.", self.worker_id)
        self._exchange.interrupt_all()
        if self._is_idle_within(_INTERRUPT_GRACE):
            return
        self._exchange.abandon()
        self._is_idle_within(_LAST_WRITES)

    def _is_idle_within(self, seconds: float, unless: threading.Event | None = None) -> bool:
        until = time.monotonic() + seconds
        while not self._exchange.idle.wait(0.05):
            is_cut_off = self._exchange.has_failed and not self._exchange.held
            if is_cut_off or not self._exchange.is_alive:
                return is_cut_off
            if time.monotonic() >= until or (unless is not None and unless.is_set()):
                return False
        return True

    def _end(self) -> None:
        self._threads.stop()
        self._loop.stop()
        self._exchange.stop(_LAST_WRITES)
        for service in (self._announcer, *self._alone, self._watch, self._deadlines):
            service.stop(_LAST_WRITES)
        if self.exit_code == EXIT_OK:
            # They have no job any more, and close their connections.
            self._threads.join(_JOIN_GRACE)
            self._loop.join(_JOIN_GRACE)
        if not self._lease_lost and self.exit_code != EXIT_DIED:
            within(_LAST_WRITES, self._sign_off)
        self._state = WorkerState.LOST if self._lease_lost else WorkerState.STOPPED
        signals.send(signals.worker_stopped, WorkerRow, worker_id=self.worker_id)
        logger.info("Worker %s stopped with exit code %s.", self.worker_id, self.exit_code)
        connections.close_all()

    def _sign_off(self) -> None:
        try:
            self.report()
            WorkerRow.objects.mark_stopped(self.worker_id)
        except Error as error:
            # The row is held for lost when its lease ends.
            logger.error("Worker %s stops, and its row does not say so: %s", self.worker_id, error)

    # What the parts tell

    def _done(self, outcome: Outcome) -> None:
        self._exchange.done(outcome)

    def _show_progress(self, job_id: int, progress: Progress) -> None:
        self._exchange.show_progress(job_id, progress)

    def _register(self) -> None:
        options = self.options
        identity.clear_name(self.worker_id)
        WorkerRow.objects.register(
            self.worker_id,
            timedelta(seconds=options.heartbeat_timeout),
            hostname=identity.hostname(),
            pid=os.getpid(),
            supervisor=self._supervisor,
            versions=identity.versions(),
            tags=self.tags,
            concurrency=options.concurrency,
            **options.served,
        )

    def pulse(self) -> None:
        """Tell the supervisor that the exchange advances."""
        self._link.pulse()

    def report(self) -> bool:
        """Write this worker's row. False: it is held for lost, or stopped."""
        return WorkerRow.objects.report(
            self.worker_id,
            state=self._state,
            processed=self._exchange.processed,
            failed=self._exchange.failed,
            active=len(self._exchange.held),
            rss=identity.memory(),
            loops=self.health(),
        )

    def on_due(self) -> None:
        """Pass on to whoever may be the leader that a scheduled job may be due."""
        self._link.hint_due()
        for service in self._alone:
            if isinstance(service, Leader):
                service.wake()

    def on_nothing_left(self) -> None:
        """End a burst, unless jobs have come up since the exchange looked: of new queues, or due by now."""
        if self._exchange.claims_left != 0 and bring_up_jobs(self.options.queues, self.tags, self.options.kind):
            self._exchange.look_again()
            return
        self._link.say_drained()
        self.request_stop()

    def on_lease_lost(self) -> None:
        """End at once: the jobs are others' now."""
        if self._lease_lost:
            return
        logger.error("Worker %s has lost its lease: its jobs are others' now. It ends.", self.worker_id)
        self._lease_lost = True
        self.exit_code = EXIT_LEASE_LOST
        self._exchange.is_claiming = False
        self.hurry()

    def _died(self, part: object) -> None:
        logger.critical("A loop of worker %s has died: %r. The worker ends.", self.worker_id, part)
        self.exit_code = EXIT_DIED
        self.hurry()
