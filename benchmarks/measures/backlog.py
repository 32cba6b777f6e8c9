"""Does a worker stay as fast when the table is full of other jobs?

Each repetition drains the same number of jobs twice, from an empty table and from one with a million finished,
pending, scheduled or blocked rows. The rate is that of the starts, from the first to the last of these jobs: with a million
pending ones there is no end to wait for.
"""

from __future__ import annotations

from ..cell import Cell
from ..peers.peer import Peer
from ..producer import PeerFailed
from ..reports import STEPS
from ..server import Database
from .measure import Values

# Seconds after the first start: who is so slow that not all have started by then is judged by those that have.
LONGEST = 60.0


def has_seed(peer: Peer, seed: str) -> bool:
    """Say whether such rows can be made for this peer."""
    return seed in peer.seeds


def compare(cell: Cell, seed: str) -> Values:
    jobs = cell.jobs_for(cell.sizes.drain)
    with cell.database() as database:
        empty = rate_of_starts(cell, database, jobs, enqueue=True)
    with cell.database(seed) as database:
        # Of a million pending jobs the oldest are started first: those, and none of ours.
        full = rate_of_starts(cell, database, min(jobs, cell.sizes.rows), enqueue=seed != "pending")
    return {"jobs": jobs, "rate": full, "empty": empty, "ratio": full / empty}


def rate_of_starts(cell: Cell, database: Database, jobs: int, *, enqueue: bool) -> float:
    """Return how many jobs a second a worker starts, of the first ``jobs``."""
    if enqueue:
        with cell.producer(database) as producer:
            producer.enqueue_many("noop", jobs)
    database.run("ANALYZE")
    database.run("CHECKPOINT")
    with cell.worker(database, jobs) as (worker, heard):
        cell.wait_for_start(worker, heard)
        cell.wait_for_started(worker, heard, jobs, longest=LONGEST)
    (begun, _), (ended, started) = min(heard.times), max(heard.times)
    if ended == begun:
        raise PeerFailed(f"fewer than {jobs // STEPS} jobs started within {LONGEST:.0f} s")
    return min(jobs, started) / (ended - begun)
