"""How soon an idle worker starts a job: from the return of the enqueue call, which is the commit, to its first line."""

from __future__ import annotations

import time

from ..cell import Cell
from ..producer import PeerFailed
from ..summary import percentile
from .measure import Values

INTERVAL = 0.05  # seconds
# A peer that polls once a second needs no 200 jobs to show it.
SLOW_PACE, SLOW_PART = 500, 4
PATIENCE = 20.0


def commit_to_start(cell: Cell) -> Values:
    jobs = cell.sizes.latencies // (SLOW_PART if cell.variant.pace < SLOW_PACE else 1)
    with cell.database() as database, cell.producer(database) as producer, cell.worker(database, jobs) as running:
        worker, heard = running
        # The first job tells that the worker is up; it is counted, not timed.
        producer.enqueue_many("noop", 1)
        cell.wait_for_start(worker, heard)
        time.sleep(cell.sizes.settle)
        committed = producer.call("paced", job="stamp", count=jobs, interval=INTERVAL)
        deadline = time.monotonic() + PATIENCE
        while len(heard.stamps) < jobs:
            worker.must_live()
            heard.take(0.1)
            if time.monotonic() > deadline:
                raise PeerFailed(f"only {len(heard.stamps)} of {jobs} jobs started")
    delays = [(heard.stamps[number] - at) * 1e3 for number, at in enumerate(committed)]
    return {"jobs": jobs, **{name: percentile(delays, part) for name, part in PERCENTILES.items()}}


PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
