"""What is measured: one function each, which returns its figures by name, and the table of them.

Every function begins with empty tables, in the sandbox. Workers are threads of this process, so the CPU time of a
drain is that of the worker alone: nobody else does anything meanwhile.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..exceptions import JobsError
from ..models.sandbox import analyze, change_one_row, round_trip
from ..task import Task
from ..worker import Worker
from ..worker.identity import make_worker_id
from . import bodies
from .bodies import NAP, QUEUE, BenchTasks

CONCURRENCY = 10
# Seconds: between two jobs for an idle worker, between two looks at a busy one, and without any progress.
INTERVAL, _LOOK, _PATIENCE = 0.05, 0.002, 60.0

# The most that a measure takes, however many jobs are asked for: more would only make it longer.
_MOST_CALLS, _MOST_AT_ONCE, _MOST_LATENCIES, _MOST_NAPS, _MOST_PROBES = 1000, 10_000, 100, 1000, 200

Figures = Mapping[str, float]


class MeasureFailed(JobsError):
    """What was measured did not come to its end, so there is no figure."""


@dataclass(frozen=True)
class Bench:
    """What every measure gets: the tasks, the number of jobs, and what to call often, which raises to end the bench."""

    tasks: BenchTasks
    jobs: int
    checkpoint: Callable[[], None]


# The database itself


def time_round_trips(bench: Bench) -> Figures:
    return {"ms": _median_ms(bench, round_trip)}


def time_commits(bench: Bench) -> Figures:
    return {"ms": _median_ms(bench, change_one_row)}


def _median_ms(bench: Bench, call: Callable[[], None]) -> float:
    # The first one may connect.
    call()
    times = []
    for _ in range(min(bench.jobs, _MOST_PROBES)):
        bench.checkpoint()
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


# Enqueue


def enqueue_one_by_one(bench: Bench) -> Figures:
    count, call = min(bench.jobs, _MOST_CALLS), bench.tasks.noop.enqueue
    round_trip()
    begin = time.perf_counter()
    for _ in range(count):
        call()
        bench.checkpoint()
    return {"calls/s": count / (time.perf_counter() - begin)}


def enqueue_at_once(bench: Bench) -> Figures:
    count = min(bench.jobs, _MOST_AT_ONCE)
    round_trip()
    begin = time.perf_counter()
    _enqueue(bench, bench.tasks.noop, count)
    return {"jobs/s": count / (time.perf_counter() - begin)}


# Run


def drain(bench: Bench) -> Figures:
    return _drain(bench)


def drain_without_claim_ahead(bench: Bench) -> Figures:
    return _drain(bench, claim_ahead=0)


def _drain(bench: Bench, **options: Any) -> Figures:
    seconds, cpu = _run(bench, bench.tasks.noop, bench.jobs, **options)
    return {"jobs/s": bench.jobs / seconds, "cpu_us/job": cpu / bench.jobs * 1e6}


def run_naps(bench: Bench) -> Figures:
    count = min(bench.jobs, _MOST_NAPS)
    seconds, _ = _run(bench, bench.tasks.nap, count)
    # They run ten by ten: the last ones may be fewer.
    return {"efficiency": math.ceil(count / CONCURRENCY) * NAP / seconds}


def time_starts(bench: Bench) -> Figures:
    """From the return of the enqueue call, which is the commit, to the first line of the job."""
    count, committed = min(bench.jobs, _MOST_LATENCIES), []
    with _worker(bench) as worker:
        done = worker.stats()["processed"]
        bodies.begun.clear()
        for number in range(count):
            time.sleep(INTERVAL)
            bench.checkpoint()
            bench.tasks.stamp.enqueue(number)
            committed.append(time.perf_counter())
        _wait_for(bench, worker, done + count)
    # A job may begin before its caller has got the word of the commit.
    delays = sorted(max(bodies.begun[number] - at, 0) * 1e3 for number, at in enumerate(committed))
    return {name: _percentile(delays, part) for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


def _percentile(ordered: Sequence[float], part: float) -> float:
    return ordered[math.ceil(part * len(ordered)) - 1]


def _run(bench: Bench, task: Task, count: int, **options: Any) -> tuple[float, float]:
    """Run so many jobs that wait already; return the seconds that it took, and those of this process's CPU.

    The clock runs from the first line of a job before them until all that they came to is written.
    """
    with _worker(bench, **options) as worker:
        worker.pause()
        done = worker.stats()["processed"]
        bench.tasks.stamp.enqueue(0)
        _enqueue(bench, task, count)
        analyze()
        cpu = time.process_time()
        worker.resume()
        _wait_for(bench, worker, done + 1 + count)
        return time.perf_counter() - bodies.begun[0], time.process_time() - cpu


def _enqueue(bench: Bench, task: Task, count: int) -> None:
    for done in range(0, count, _MOST_AT_ONCE):
        bench.checkpoint()
        task.enqueue_many([((), {})] * min(_MOST_AT_ONCE, count - done))


@contextmanager
def _worker(bench: Bench, **options: Any) -> Iterator[Worker]:
    """Yield a worker that has run a job already: its threads are there, its connections open."""
    worker = Worker([QUEUE], worker_id=make_worker_id(), concurrency=CONCURRENCY, shutdown_timeout=5, **options)
    with worker:
        bench.tasks.noop.enqueue()
        _wait_for(bench, worker, 1)
        yield worker
    if worker.exit_code:
        raise MeasureFailed(f"The worker ended with code {worker.exit_code}.")


def _wait_for(bench: Bench, worker: Worker, count: int) -> None:
    last, since = -1, time.monotonic()
    while True:
        bench.checkpoint()
        stats = worker.stats()
        if stats["failed"]:
            raise MeasureFailed(f"{stats['failed']} jobs failed.")
        if stats["processed"] >= count:
            return
        if stats["processed"] != last:
            last, since = stats["processed"], time.monotonic()
        if time.monotonic() - since > _PATIENCE:
            raise MeasureFailed(f"{last} of {count} jobs are done, and none more for {_PATIENCE:.0f} s.")
        if worker.wait(_LOOK):
            raise MeasureFailed(f"The worker ended by itself, with code {worker.exit_code}.")


# The table


@dataclass(frozen=True)
class Measure:
    """One measure: its title, with ``{}`` for the number of jobs, the most of them, and its figures' units and digits."""

    title: str
    most: int | None
    units: Mapping[str, tuple[str, int]]
    take: Callable[[Bench], Figures]

    def jobs(self, asked: int) -> int:
        """Return how many jobs, or calls, it takes when so many are asked for."""
        return asked if self.most is None else min(asked, self.most)


_MS = {"ms": ("ms", 3)}
_DRAIN = {"jobs/s": ("jobs/s", 0), "cpu_us/job": ("µs CPU/job", 1)}
_STARTS = {"p50": ("ms p50", 2), "p95": ("ms p95", 2), "p99": ("ms p99", 2)}

MEASURES: dict[str, Measure] = {
    "round-trip": Measure("the database: a round trip (SELECT 1)", _MOST_PROBES, _MS, time_round_trips),
    "commit": Measure("the database: a commit of one row", _MOST_PROBES, _MS, time_commits),
    "enqueue": Measure("enqueue {} one by one", _MOST_CALLS, {"calls/s": ("calls/s", 0)}, enqueue_one_by_one),
    "enqueue-many": Measure("enqueue_many of {}", _MOST_AT_ONCE, {"jobs/s": ("jobs/s", 0)}, enqueue_at_once),
    "drain": Measure("drain {} no-op jobs", None, _DRAIN, drain),
    "drain-no-ahead": Measure("drain {}, claim-ahead off", None, _DRAIN, drain_without_claim_ahead),
    "latency": Measure("commit to start, idle worker", _MOST_LATENCIES, _STARTS, time_starts),
    "naps": Measure("{} jobs of 10 ms", _MOST_NAPS, {"efficiency": ("of ideal", 3)}, run_naps),
}
