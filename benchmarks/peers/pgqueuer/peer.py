"""pgqueuer: asyncio on asyncpg; the fastest one in Python apart from ours."""

from __future__ import annotations

from benchmarks.peers.peer import OF_WORKERS, Peer, Variant

_WORKER = ("-m", "benchmarks.peers.pgqueuer.child", "worker")

PGQUEUER = Peer(
    name="pgqueuer",
    variants=(
        Variant(
            "default",
            "asyncpg, uvloop, batch_size 10, no limit of concurrency (its default)",
            6_000,
            (*_WORKER, '{"batch_size": 10}'),
            concurrency=None,
        ),
        Variant(
            "b100",
            "batch_size 100, no limit of concurrency: its best",
            16_000,
            (*_WORKER, '{"batch_size": 100}'),
            measures=OF_WORKERS,
            concurrency=None,
        ),
        Variant(
            "c10",
            "batch_size 5, max_concurrent_tasks 10: the only way to hold it to 10",
            3_000,
            (*_WORKER, '{"batch_size": 5, "max_concurrent_tasks": 10}'),
            measures=OF_WORKERS,
        ),
    ),
    unfinished="SELECT EXISTS (SELECT FROM pgqueuer WHERE execute_after <= now())",
    # What has ended leaves the table; only its log is kept, in one row for each change of state.
    seeds={
        "finished": """
            INSERT INTO pgqueuer_log (job_id, status, priority, entrypoint)
            SELECT number, status::pgqueuer_status, 0, 'noop'
            FROM generate_series(1, {count}) AS number,
                unnest(ARRAY['queued', 'picked', 'successful']) AS status
        """,
        "pending": """
            INSERT INTO pgqueuer (priority, status, entrypoint) SELECT 0, 'queued', 'noop' FROM generate_series(1, {count})
        """,
        "scheduled": """
            INSERT INTO pgqueuer (priority, status, entrypoint, execute_after)
            SELECT 0, 'queued', 'noop', now() + interval '1 day' FROM generate_series(1, {count})
        """,
    },
)
