"""Does a worker stay as fast when the table is full of other jobs?

Each repetition drains the same number of jobs twice, from an empty table and from one with a million finished,
pending or scheduled rows. The rate is that of the starts, from the first to the last of these jobs: with a million
pending ones there is no end to wait for.
"""

from __future__ import annotations

from ..cell import Cell
from ..producer import PeerFailed
from ..server import Database
from .measure import Values

# As many as a drain of 4 s has, but not fewer than show a rate.
FEWEST = 500


def finished(cell: Cell) -> Values:
    return compare(cell, "finished")


def pending(cell: Cell) -> Values:
    return compare(cell, "pending")


def scheduled(cell: Cell) -> Values:
    return compare(cell, "scheduled")


def compare(cell: Cell, seed: str) -> Values:
    if seed not in cell.peer.seeds:
        raise PeerFailed(f"there is no SQL that makes {seed} rows for it")
    jobs = cell.jobs_for(cell.sizes.drain)
    with cell.database() as database:
        empty = rate_of_starts(cell, database, jobs, enqueue=True)
    with cell.database(seed) as database:
        # Of a million pending jobs the oldest are started first: those, and none of ours.
        full = rate_of_starts(cell, database, min(jobs, cell.sizes.rows), enqueue=seed != "pending")
    return {"jobs": jobs, "ratio": full / empty, "rate": full, "empty": empty}


def rate_of_starts(cell: Cell, database: Database, jobs: int, *, enqueue: bool) -> float:
    """Return how many jobs a second a worker starts, of the first ``jobs``."""
    if enqueue:
        with cell.producer(database) as producer:
            producer.enqueue_many("noop", jobs)
    database.run("ANALYZE")
    database.run("CHECKPOINT")
    with cell.worker(database, jobs) as (worker, heard):
        cell.wait_for_started(worker, heard, jobs)
    begun = heard.first
    ended = min(at for at, count in heard.times if count >= jobs)
    assert begun is not None
    return jobs / (ended - begun)
