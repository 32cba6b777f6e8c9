"""How many jobs a worker may claim, and where they go: threads for plain functions, the event loop for ``async def``.

For jobs that took milliseconds the worker claims ahead: as many as the threads will finish in about ``claim_ahead``
seconds, so that they never wait for the database. For slower jobs it claims no more than the threads that are free.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from inspect import iscoroutinefunction
from typing import NamedTuple

from ..exceptions import Interrupt
from ..models.claim import ANY, Kind
from ..outcomes import ClaimedJob, Outcome
from ..task import declared_names
from .executors.event_loop import LoopExecutor
from .executors.threads import ThreadExecutor

# More would not make it faster, and a worker that dies gives back what it had claimed ahead.
MOST_AHEAD = 500
# How long (seconds) jobs may wait behind slow ones before others get them.
STUCK_AFTER = 1.0
# A search for jobs of one kind passes all ready jobs of the other kind. When it found too few, the next waits this many
# times as long as it took, and at least so long (seconds): under a deep backlog it must not slow down the rest.
_SEARCH_PAUSE, _SHORTEST_SEARCH_PAUSE = 20, 0.05
# The executor of a queue whose async def jobs run in threads too, each with an event loop of its own.
IN_THREADS = "thread"
# How much one more duration moves the mean.
_WEIGHT = 0.1


class Wanted(NamedTuple):
    """Which jobs to claim and how many; ``is_search``: only those of one kind, because the other has no room."""

    kind: Kind
    limit: int
    is_search: bool = False


class Capacity:
    """The worker's executors, as the exchange sees them. Used by the exchange thread only."""

    def __init__(self, threads: ThreadExecutor, loop: LoopExecutor, claim_ahead: float, kind: Kind = ANY) -> None:
        """``kind`` is what the worker takes while it has room for all of it."""
        self._kind = kind
        self._threads = threads
        self._loop = loop
        self._claim_ahead = claim_ahead
        self._mean: float | None = None
        self._async_paths: frozenset[str] = async_paths()
        # Jobs that were handed over and of which no outcome is known yet.
        self._in_threads = self._on_loop = 0
        self._moved_at = time.monotonic()
        self._search_at = 0.0

    def learn(self, outcomes: Collection[Outcome]) -> None:
        """Take note of attempts that have ended: their places are free, and their durations go into the mean."""
        in_threads = [outcome for outcome in outcomes if not self._is_async(outcome.job)]
        self._on_loop -= len(outcomes) - len(in_threads)
        self._in_threads -= len(in_threads)
        run = [outcome for outcome in in_threads if outcome.verb != "release"]
        if not run:
            return
        self._moved_at = time.monotonic()
        longest = self._share_of_time(run)
        for outcome in run:
            duration = min(outcome.duration, longest)
            mean = duration if self._mean is None else self._mean
            self._mean = mean + (duration - mean) * _WEIGHT

    def _share_of_time(self, run: Collection[Outcome]) -> float:
        """Return how much time of a thread each of these attempts can have had, on average.

        A thread whose job is done in microseconds may wait for milliseconds until Python lets it run again, and so
        the durations of small jobs say little; how many there were in the time of all says more.
        """
        began = [outcome.began for outcome in run if outcome.began is not None]
        if len(began) < len(run):
            return float("inf")
        ended = max(outcome.duration + start for outcome, start in zip(run, began, strict=True))
        return self._threads.size * (ended - min(began)) / len(run)

    @property
    def is_stuck(self) -> bool:
        """Say whether jobs that were claimed ahead have been waiting behind slow ones for too long."""
        return self._threads.waiting > 0 and time.monotonic() - self._moved_at > STUCK_AFTER

    def stop_claiming_ahead(self) -> None:
        """Forget how short jobs were: claim for free threads only, until the next ones have ended."""
        self._mean = None

    def ahead(self) -> int:
        """Return how many jobs to claim beyond the free threads."""
        if self._mean is None or self._mean >= self._claim_ahead:
            return 0
        return min(MOST_AHEAD, int(self._threads.size * self._claim_ahead / max(self._mean, 1e-6)))

    def wanted(self) -> Wanted | None:
        """Return which jobs to claim: of both kinds while both have room, else of the one that has; None without room."""
        in_threads, on_loop = self._rooms()
        if not self._async_paths:
            return Wanted(self._kind, in_threads) if in_threads > 0 else None
        if in_threads > 0 and on_loop > 0:
            return Wanted(self._kind, min(in_threads, on_loop))
        if max(in_threads, on_loop) <= 0 or time.monotonic() < self._search_at:
            return None
        kind = self._kind._replace(paths=self._async_paths, is_without=in_threads > 0)
        return Wanted(kind, max(in_threads, on_loop), is_search=True)

    def free_for(self, kind: Kind) -> int:
        """Return how many jobs of this kind would begin at once."""
        in_threads, on_loop = self._threads.size - self._in_threads, self._loop.size - self._on_loop
        if not self._async_paths or (kind.paths and kind.is_without):
            return in_threads
        return on_loop if kind.paths else min(in_threads, on_loop)

    def found_few(self, seconds: float) -> None:
        """Take note that a search took so long and did not find as many jobs as there is room for."""
        self._search_at = time.monotonic() + max(_SEARCH_PAUSE * seconds, _SHORTEST_SEARCH_PAUSE)

    def search_in(self) -> float | None:
        """Return the seconds until the next search may be made; None if it may be made now."""
        seconds = self._search_at - time.monotonic()
        return seconds if seconds > 0 else None

    def submit(self, jobs: Iterable[ClaimedJob]) -> None:
        """Hand claimed jobs to their executors."""
        if not self._threads.waiting:
            self._moved_at = time.monotonic()
        self._hand_over(jobs)

    def _hand_over(self, jobs: Iterable[ClaimedJob]) -> None:
        for job in jobs:
            if self._is_async(job):
                self._on_loop += 1
                self._loop.submit(job)
            else:
                self._in_threads += 1
                self._threads.submit(job)

    def take_back(self, wanted: Callable[[ClaimedJob], bool]) -> list[ClaimedJob]:
        """Return the wanted ones of the jobs that have not begun; they are not run here."""
        unbegun = self._threads.take_back()
        self._in_threads -= len(unbegun)
        # No submission: the others have been waiting for as long as before.
        self._hand_over(job for job in unbegun if not wanted(job))
        return [job for job in unbegun if wanted(job)]

    def interrupt(self, ids: Collection[int], reason: type[Interrupt]) -> None:
        self._threads.interrupt(ids, reason)
        self._loop.interrupt(ids, reason)

    def _rooms(self) -> tuple[int, int]:
        return self._threads.size + self.ahead() - self._in_threads, self._loop.size - self._on_loop

    def _is_async(self, job: ClaimedJob) -> bool:
        return job.task_path in self._async_paths and job.executor != IN_THREADS


def async_paths() -> frozenset[str]:
    """Return the names, aliases too, of the declared tasks that are ``async def``."""
    return frozenset(name for name, task in declared_names().items() if iscoroutinefunction(task.func))
