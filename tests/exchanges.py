"""An exchange whose passes the test makes by hand, with executors that begin a job when the test says so."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from django_jobs import signals
from django_jobs.context import ignore_progress
from django_jobs.models import Job, Worker
from django_jobs.outcomes import ClaimedJob, Outcome
from django_jobs.states import JobState, WorkerState
from django_jobs.worker.announcer import Announcer
from django_jobs.worker.capacity import Capacity
from django_jobs.worker.deadlines import Deadlines
from django_jobs.worker.exchange import Exchange
from django_jobs.worker.execution import make_runner
from django_jobs.worker.executors.event_loop import LoopExecutor
from django_jobs.worker.executors.threads import ThreadExecutor
from django_jobs.worker.identity import tags_of
from django_jobs.worker.options import resolve_options

from . import tasks
from .rows import WORKER, start_worker


class Hand:
    """The exchange of a worker, the parts that it talks to, and the worker as it sees it.

    Its threads are not running: ``begin()`` takes a job as a thread does, and ``end()`` tells its outcome.
    """

    def __init__(self, *, once: bool = False, burst: bool = False, **options: Any) -> None:
        flags = {name.upper(): value for name, value in ({"concurrency": 2, "notify": False} | options).items()}
        self.options = resolve_options(flags, once=once, burst=burst)
        self.calls: list[str] = []
        runner = make_runner([], ignore_progress)
        self.threads = ThreadExecutor(self.options.concurrency, runner, _ignore, _ignore, Deadlines())
        self.loop = LoopExecutor(self.options.async_concurrency, runner, _ignore, _ignore, Deadlines())
        self.capacity = Capacity(self.threads, self.loop, self.options.claim_ahead, self.options.kind)
        self.announcer = Announcer()
        tags = tags_of(WORKER, list(self.options.tags))
        self.exchange = Exchange(WORKER, self.options, self.capacity, self.announcer, owner=self, tags=tags)

    def __enter__(self) -> Self:
        start_worker()
        # Successes that nobody hears of are not told.
        signals.job_succeeded.connect(_ignore)
        self.loop.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.loop.stop()
        self.loop._thread.join()
        signals.job_succeeded.disconnect(_ignore)

    # The worker, as the exchange sees it

    def pulse(self) -> None:
        """Nobody listens."""

    def report(self) -> bool:
        return Worker.objects.report(
            WORKER,
            state=WorkerState.RUNNING,
            processed=self.exchange.processed,
            failed=self.exchange.failed,
            active=len(self.exchange.held),
        )

    def on_due(self) -> None:
        self.calls.append("due")

    def on_lease_lost(self) -> None:
        self.calls.append("lease lost")

    def on_nothing_left(self) -> None:
        self.calls.append("nothing left")

    # The hand of the test

    def turn(self) -> list[int]:
        """Make one pass and return the ids of the jobs that are held after it."""
        self.exchange.run_once()
        return self.exchange.held

    def settle(self) -> list[int]:
        """Make passes until one would wait, and return the ids of the jobs that are held then."""
        while self.exchange.run_once() == 0:
            pass
        return self.exchange.held

    def look(self) -> list[int]:
        """Make one pass that looks around, and return the ids of the jobs that are held after it."""
        self.exchange.look_soon()
        return self.turn()

    def begin(self) -> ClaimedJob:
        """Take the next claimed job, as a thread does that is free."""
        job = self.threads._inbox.get(timeout=1)
        assert job is not None
        return job

    def end(self, job: ClaimedJob, verb: str = "succeed", **values: Any) -> None:
        """Tell the outcome of a job, as a thread does."""
        self.exchange.done(Outcome(job, verb, **values))

    def told(self) -> list[tuple[int, str]]:
        """Return id and verb of the outcomes that receivers are told, and take them off."""
        told = []
        while (outcome := self.announcer._next()) is not None:
            told.append((outcome.job.id, outcome.verb))
        return told


def _ignore(*told: object, **arguments: object) -> None:
    """The test tells the outcomes itself."""


def enqueue(count: int, task: Any = tasks.noop, **using: Any) -> list[int]:
    """Enqueue jobs and return their ids, in order."""
    return [int(task.using(**using).enqueue().id) for _ in range(count)]


def states(ids: list[int]) -> list[JobState]:
    """Return the states of these jobs, in the order of their ids."""
    return [JobState(state) for state in Job.objects.filter(pk__in=ids).order_by("pk").values_list("state", flat=True)]
