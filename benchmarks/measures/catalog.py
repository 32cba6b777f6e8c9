"""All measures, in the order in which they are taken."""

from __future__ import annotations

from functools import partial

from . import backlog, drain, enqueue, held, idle, latency, statements
from .measure import Measure, Metric

_RATE = Metric("rate", "jobs/s")
_COSTS = (
    Metric("worker µs", "µs/job", 1, more_is_better=False),
    Metric("server µs", "µs/job", 1, more_is_better=False),
    Metric("WAL B", "B/job", more_is_better=False),
    Metric("RSS MB", "MB", 1, more_is_better=False),
)
_RATIO = Metric("ratio", "", 2)

MEASURES: tuple[Measure, ...] = (
    Measure("enqueue", "Enqueue one by one, a commit each", enqueue.single, (_RATE, _COSTS[1])),
    Measure("bulk", "Enqueue 10,000 at once", enqueue.bulk, (_RATE,)),
    Measure("drain", "Drain of no-op jobs, one worker process", drain.one_process, (_RATE, *_COSTS)),
    Measure("drain2", "Drain of no-op jobs, two worker processes", drain.two_processes, (_RATE, *_COSTS)),
    Measure(
        "latency",
        "Commit to first line of the job, idle worker, a job every 50 ms",
        latency.commit_to_start,
        tuple(Metric(name, "ms", 2, more_is_better=False) for name in latency.PERCENTILES),
    ),
    Measure(
        "sleep",
        "Jobs of 10 ms at concurrency 10; 1 is ideal",
        drain.naps,
        (Metric("efficiency", "of ideal", 3),),
    ),
    Measure(
        "orm",
        "Jobs with one SELECT and one UPDATE through the ORM",
        drain.orm,
        (_RATE, *_COSTS),
        applies=lambda peer: peer.is_django,
    ),
    *(
        Measure(
            name,
            f"Drain with a million {name} rows in the table",
            partial(backlog.compare, seed=name),
            (_RATE, Metric("empty", "jobs/s"), _RATIO),
            applies=partial(backlog.has_seed, seed=name),
        )
        for name in ("finished", "pending", "scheduled", "blocked")
    ),
    Measure(
        "held",
        "Drain after others have churned through the table under a snapshot that somebody holds",
        held.held_snapshot,
        (_RATE, Metric("free", "jobs/s"), _RATIO, Metric("churned", "jobs")),
    ),
    Measure("producers", "Ten processes enqueue one by one at once", enqueue.producers, (_RATE,)),
    Measure(
        "idle",
        "An idle worker",
        idle.idle,
        (
            Metric("worker %", "of a core", 2, more_is_better=False),
            Metric("server %", "of a core", 2, more_is_better=False),
            Metric("statements/s", "", 1, more_is_better=False),
        ),
    ),
    Measure(
        "memory",
        "Resident memory after a drain",
        idle.memory,
        (
            Metric("worker MB", "that runs the jobs", 1, more_is_better=False),
            Metric("supervisor MB", "largest other", 1, more_is_better=False),
            Metric("all MB", "together", 1, more_is_better=False),
            Metric("processes", ""),
        ),
    ),
    Measure(
        "statements",
        "Statements and commits of the worker for 1,000 no-op jobs",
        statements.per_thousand,
        (Metric("statements", "per 1,000", more_is_better=False), Metric("commits", "per 1,000", more_is_better=False)),
    ),
)
