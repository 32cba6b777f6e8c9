"""Load: threads of the test that enqueue without pause, and what the ledger says of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from django.db import connections

from django_jobs.models import Attempt, Job
from django_jobs.states import FINISHED, AttemptOutcome, JobState
from tests import jobs
from tests.process.ledger import Ledger
from tests.process.observe import PATIENCE
from tests.processes import wait_until

# As many ready jobs are enough that no worker ever waits for one.
MOST_READY = 150


def one_by_one() -> Sequence[Any]:
    return [jobs.touch.enqueue(), jobs.pause_briefly.enqueue(0.01)]


def many_at_once() -> Sequence[Any]:
    return jobs.touch.enqueue_many([((), {})] * 10)


class Producers:
    """Enqueues until the end of the block, as web processes do. What an enqueue raises is raised there."""

    def __init__(self, *enqueue: Callable[[], Sequence[Any]]) -> None:
        # When each job was there for the workers.
        self.enqueued: dict[int, float] = {}
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._produce, args=(each,)) for each in enqueue]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._error is not None and error is None:
            raise self._error

    def wait_for_more(self, count: int = 50) -> None:
        """Wait until so many more jobs have been enqueued."""
        target = len(self.enqueued) + count
        wait_until(
            lambda: len(self.enqueued) >= target or self._error, timeout=PATIENCE, message=f"{count} more jobs enqueued"
        )

    def _produce(self, enqueue: Callable[[], Sequence[Any]]) -> None:
        try:
            while not self._stop.is_set():
                if Job.objects.ready().count() < MOST_READY:
                    results = enqueue()
                    now = time.monotonic()
                    self.enqueued.update({int(result.id): now for result in results})
                # They leave the machine to the workers now and then.
                self._stop.wait(0.005)
        except BaseException as error:
            self._error = error
        finally:
            connections.close_all()


def wait_for_more_jobs(count: int = 50) -> None:
    """Wait until so many more jobs have succeeded."""
    succeeded = Job.objects.filter(state=JobState.SUCCEEDED)
    target = succeeded.count() + count
    wait_until(lambda: succeeded.count() >= target, timeout=PATIENCE, message=f"{count} more jobs")


def assert_each_ran_once(ledger: Ledger, enqueued: Collection[int]) -> None:
    """Wait for the end of all jobs, and assert that each succeeded, in an attempt that nobody took from its worker."""
    unfinished = Job.objects.exclude(state__in=FINISHED)
    wait_until(lambda: not unfinished.exists(), timeout=2 * PATIENCE, message="the end of all jobs")
    states = dict(Job.objects.filter(pk__in=list(enqueued)).values_list("pk", "state"))
    assert states == dict.fromkeys(enqueued, JobState.SUCCEEDED)
    times = ledger.times_run()
    assert {pk: times[pk] for pk in enqueued} == dict.fromkeys(enqueued, 1)
    assert set(Attempt.objects.filter(job_id__in=list(enqueued)).values_list("outcome", flat=True)) <= {
        AttemptOutcome.INTERRUPTED
    }


def longest_idle(ledger: Ledger, enqueued: dict[int, float]) -> float:
    """Return the longest time (seconds) in which no job began and none ran, though some had been ready all the time."""
    entries = ledger.entries()
    began = {entry.job_id: entry.at for entry in entries if entry.event in ("ran", "begin")}
    waiting = [(since, began[pk]) for pk, since in enqueued.items()]
    longest, running = 0.0, 0
    for before, after in pairwise(entries):
        running += {"begin": 1, "end": -1}.get(before.event, 0)
        if not running and after.at - before.at > longest:
            # Of those that begin after the gap, the one that has waited longest.
            since = min((since for since, at in waiting if at >= after.at), default=after.at)
            longest = max(longest, after.at - max(before.at, since))
    return longest
