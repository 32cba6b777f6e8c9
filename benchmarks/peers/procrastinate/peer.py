"""procrastinate: one job per call of a function in the database."""

from __future__ import annotations

from benchmarks.peers.peer import OF_WORKERS, Peer, Variant

_WORKER = ("-m", "benchmarks.peers.procrastinate.child", "worker")

PROCRASTINATE = Peer(
    name="procrastinate",
    variants=(
        Variant("async", "async def tasks, concurrency 10, its default pool of 4", 670, (*_WORKER, "async")),
        Variant(
            "sync",
            "plain functions, each in a thread, concurrency 10, its default pool of 4",
            630,
            (*_WORKER, "sync"),
            measures=OF_WORKERS,
        ),
    ),
    unfinished="SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))",
    seeds={
        state: f"""
            INSERT INTO procrastinate_jobs (queue_name, task_name, status, scheduled_at, attempts)
            SELECT 'default', 'noop', '{status}', {scheduled_at}, {attempts} FROM generate_series(1, {{count}})
        """
        for state, status, scheduled_at, attempts in (
            ("finished", "succeeded", "NULL::timestamptz", 1),
            ("pending", "todo", "NULL::timestamptz", 0),
            ("scheduled", "todo", "now() + interval '1 day'", 0),
        )
    },
)
