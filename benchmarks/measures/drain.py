"""How fast a worker empties a full queue, and what that costs.

The jobs are there before the worker starts, the tables are analyzed, and a checkpoint has just been made. The
clock runs from the first line of the first job until nothing is unfinished in the database.
"""

from __future__ import annotations

from ..cell import Cell
from ..peers.bodies import NAP
from ..server import Database
from .measure import Values

# The end is looked for only when this part of the jobs has started: asking costs the server something.
NEAR_THE_END = 0.92


def one_process(cell: Cell) -> Values:
    return enqueue_and_drain(cell, "noop", cell.jobs_for(cell.sizes.drain))


def two_processes(cell: Cell) -> Values:
    return enqueue_and_drain(cell, "noop", cell.jobs_for(cell.sizes.drain * 1.5), processes=2)


def orm(cell: Cell) -> Values:
    """Drain jobs that make one indexed SELECT and one UPDATE through Django's ORM."""
    return enqueue_and_drain(cell, "orm", cell.jobs_for(cell.sizes.drain, min(cell.variant.pace, 1_000)))


def naps(cell: Cell) -> Values:
    """Drain jobs of 10 ms. Efficiency 1 is ten of them at every moment."""
    jobs = cell.sizes.naps
    if cell.variant.concurrency == 1:
        jobs //= 10
    ideal = jobs * NAP / 10
    values = enqueue_and_drain(cell, "nap", jobs)
    return {"jobs": jobs, "efficiency": ideal * values["rate"] / jobs}


def enqueue_and_drain(cell: Cell, job: str, jobs: int, processes: int = 1) -> Values:
    with cell.database() as database:
        with cell.producer(database) as producer:
            producer.enqueue_many(job, jobs)
        return drain(cell, database, jobs, processes)


def drain(cell: Cell, database: Database, jobs: int, processes: int = 1) -> Values:
    """Drain what was enqueued. Rates are per second, times in µs per job, of all processes together."""
    database.run("ANALYZE")
    database.run("CHECKPOINT")
    server, wal = cell.server, cell.server.wal_position()
    with cell.worker(database, jobs, processes) as (worker, heard):
        cell.wait_for_start(worker, heard)
        worker_begun, server_begun = worker.cpu(), server.cpu()
        cell.wait_for_started(worker, heard, int(jobs * NEAR_THE_END))
        ended = cell.wait_for_end(database, worker)
        worker_used, server_used = worker.cpu() - worker_begun, server.cpu() - server_begun
        wal = server.wal_position() - wal
        worker.look_at_memory()
        heard.take(0.05)
    assert heard.first is not None
    return {
        "jobs": jobs,
        "rate": jobs / (ended - heard.first),
        "worker µs": worker_used / jobs * 1e6,
        "server µs": server_used / jobs * 1e6,
        "WAL B": wal / jobs,
        "RSS MB": worker.largest / 1e6,
    }
