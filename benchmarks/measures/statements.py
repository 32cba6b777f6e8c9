"""How many statements and commits a thousand no-op jobs cost.

The server logs every statement for it, so nothing is timed. A worker's start, its end and some idle seconds cost
statements as well: they are counted in a run with a single job, and taken off.
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
    jobs = max(cell.sizes.counted, cell.jobs_for(cell.sizes.drain / 4))
    one, all_of_them = count(cell, 1), count(cell, 1 + jobs)
    return {
        "jobs": jobs,
        "statements": max(0, all_of_them.statements - one.statements) / jobs * PER,
        "commits": max(0, all_of_them.commits - one.commits) / jobs * PER,
    }


def count(cell: Cell, jobs: int) -> Count:
    """Count what a worker says from its start to its end, that drains so many jobs and idles a while."""
    with cell.database() as database:
        with cell.producer(database) as producer:
            producer.enqueue_many("noop", jobs)
        position = cell.server.log_statements_of_new_sessions(CELL)
        commits, asked = database.commits(), database.asked
        with cell.worker(database, jobs) as (worker, heard):
            cell.wait_for_start(worker, heard)
            cell.wait_for_end(database, worker)
            time.sleep(cell.sizes.settle)
        # What we asked ourselves was committed, too.
        committed = database.commits() - commits - (database.asked - asked)
    return Count(cell.server.count_logged_statements(position), committed)
