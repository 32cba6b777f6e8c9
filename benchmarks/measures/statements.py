"""How many statements and commits a thousand no-op jobs cost.

The server logs every statement for it, so nothing is timed. A worker's start, its end and some idle seconds cost
statements as well: they are counted in a run without jobs and taken off.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ..cell import Cell
from ..server import CELL
from .measure import Values

PER = 1000


class Count(NamedTuple):
    statements: int
    commits: int


def per_thousand(cell: Cell) -> Values:
    jobs = cell.sizes.counted
    nothing, all_of_them = count(cell, 0), count(cell, jobs)
    return {
        "jobs": jobs,
        "statements": max(0, all_of_them.statements - nothing.statements) / jobs * PER,
        "commits": max(0, all_of_them.commits - nothing.commits) / jobs * PER,
    }


def count(cell: Cell, jobs: int) -> Count:
    """Count what a worker says that drains one job, and then ``jobs`` more, and idles a while."""
    with cell.database() as database, cell.producer(database) as producer:
        producer.enqueue_many("noop", 1 + jobs)
        # For sessions that begin after this: the worker's. Ours and the producer's are not counted.
        database.run(f"ALTER DATABASE {CELL} SET log_statement = 'all'")
        position, commits, asked = cell.server.log_path().stat().st_size, database.commits(), database.asked
        with cell.worker(database, 1 + jobs) as (worker, heard):
            cell.wait_for_start(worker, heard)
            cell.wait_for_end(database, worker)
            time.sleep(cell.sizes.settle)
        statements = cell.server.count_logged_statements(position)
        committed = database.commits() - commits - (database.asked - asked)
    return Count(statements, committed)
