"""How fast jobs are written: one by one, each with a commit of its own, and ten thousand at once."""

from __future__ import annotations

import time

from ..cell import Cell
from .measure import Values

# About what everybody reaches; it decides only how long the measure takes.
SINGLE_PACE = 1_500
WARM_UP = 50
BULK_WARM_UP = 10


def single(cell: Cell) -> Values:
    jobs = cell.jobs_for(cell.sizes.single, SINGLE_PACE)
    with cell.database() as database, cell.producer(database) as producer:
        producer.call("one_by_one", job="noop", count=WARM_UP)
        cpu = cell.server.cpu()
        times = producer.call("one_by_one", job="noop", count=jobs)
        server = cell.server.cpu() - cpu
    return {
        "jobs": jobs,
        "rate": jobs / (times["ended"] - times["begun"]),
        "server µs": server / jobs * 1e6,
    }


def bulk(cell: Cell) -> Values:
    jobs = cell.sizes.bulk
    with cell.database() as database, cell.producer(database) as producer:
        producer.enqueue_many("noop", BULK_WARM_UP)
        return {"jobs": jobs, "rate": jobs / producer.enqueue_many("noop", jobs)}


def producers(cell: Cell) -> Values:
    """Have several processes enqueue one by one at the same time; no worker runs."""
    each = cell.jobs_for(cell.sizes.single, SINGLE_PACE) // 2
    with cell.database() as database, cell.producers(database, cell.sizes.producers) as producing:
        for producer in producing:
            producer.call("one_by_one", job="noop", count=WARM_UP)
        # They wait for the same moment on their own: starting them one by one takes a while.
        at = time.time() + 0.2
        for producer in producing:
            producer.send("one_by_one", job="noop", count=each, at=at)
        times = [producer.answer() for producer in producing]
    jobs = each * len(times)
    return {"jobs": jobs, "rate": jobs / (max(t["ended"] for t in times) - min(t["begun"] for t in times))}
