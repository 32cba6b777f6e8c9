"""All measures, in the order in which they are taken."""

from __future__ import annotations

from . import drain, enqueue, latency
from .measure import Measure, Metric

_RATE = Metric("rate", "jobs/s")
_COSTS = (
    Metric("worker µs", "µs/job", 1, more_is_better=False),
    Metric("server µs", "µs/job", 1, more_is_better=False),
    Metric("WAL B", "B/job", more_is_better=False),
    Metric("RSS MB", "MB", 1, more_is_better=False),
)

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
)
