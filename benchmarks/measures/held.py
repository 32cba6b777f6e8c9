"""What a transaction that somebody leaves open does to a worker.

While it is open, vacuum may remove nothing that died since, and dead rows and index entries pile up where the claim
looks. Each repetition drains the same number of jobs before, and again after as many jobs as ``churn`` says have gone
through the table under a snapshot that is held.
"""

from __future__ import annotations

import psycopg

from ..cell import Cell
from ..server import Database
from .backlog import rate_of_starts
from .measure import Values


def held_snapshot(cell: Cell) -> Values:
    jobs = cell.jobs_for(cell.sizes.drain / 2)
    churned = min(cell.sizes.churn, int(cell.sizes.churn_seconds * cell.variant.pace))
    with cell.database() as database:
        free = rate_of_starts(cell, database, jobs, enqueue=True)
    with cell.database() as database, psycopg.connect(database.url) as holder:
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        # The snapshot is taken by the first statement, not by BEGIN.
        holder.execute("SELECT 1")
        churn(cell, database, churned)
        held = rate_of_starts(cell, database, jobs, enqueue=True)
        holder.rollback()
    return {"jobs": jobs, "rate": held, "free": free, "ratio": held / free, "churned": churned}


def churn(cell: Cell, database: Database, jobs: int) -> None:
    """Have a worker run so many jobs, and wait until they are finished."""
    with cell.producer(database) as producer:
        producer.enqueue_many("noop", jobs)
    with cell.worker(database, jobs) as (worker, heard):
        cell.wait_for_started(worker, heard, int(jobs * 0.95))
        cell.wait_for_end(database, worker)
