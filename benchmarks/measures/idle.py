"""What a worker costs that has nothing to do: processor, statements, memory."""

from __future__ import annotations

import time

from ..cell import Cell
from ..server import CELL
from .measure import Values


def idle(cell: Cell) -> Values:
    """Watch an idle worker for some seconds, after it has run one job and had time to settle."""
    seconds = cell.sizes.idle
    with cell.database() as database:
        with cell.producer(database) as producer:
            producer.enqueue_many("noop", 1)
        cell.server.log_statements_of_new_sessions(CELL)
        with cell.worker(database, 1) as (worker, heard):
            cell.wait_for_start(worker, heard)
            time.sleep(cell.sizes.settle)
            worker_begun, server_begun = worker.cpu(), cell.server.cpu()
            position = cell.server.log_path().stat().st_size
            time.sleep(seconds)
            worker_used, server_used = worker.cpu() - worker_begun, cell.server.cpu() - server_begun
            statements = cell.server.count_logged_statements(position)
            worker.must_live()
    return {
        "worker %": worker_used / seconds * 100,
        "server %": server_used / seconds * 100,
        "statements/s": statements / seconds,
    }


def memory(cell: Cell) -> Values:
    """Return the memory of the process that runs the jobs and of its parent, after a drain."""
    jobs = cell.jobs_for(cell.sizes.drain / 2)
    with cell.database() as database:
        with cell.producer(database) as producer:
            producer.enqueue_many("noop", jobs)
        with cell.worker(database, jobs) as (worker, heard):
            cell.wait_for_started(worker, heard, int(jobs * 0.95))
            cell.wait_for_end(database, worker)
            worker.look_at_memory()
            runs_jobs = max(heard.counts, key=heard.counts.__getitem__)
            resident = worker.resident
    others = [size for pid, size in resident.items() if pid != runs_jobs]
    return {
        "jobs": jobs,
        "worker MB": resident[runs_jobs] / 1e6,
        "supervisor MB": max(others, default=0) / 1e6,
        "all MB": sum(resident.values()) / 1e6,
        "processes": len(resident),
    }
