"""The floor: no queue at all, but the least that PostgreSQL and psycopg need for one."""

from __future__ import annotations

from benchmarks.peers.peer import Peer, Variant

RAW = Peer(
    name="raw",
    variants=(
        Variant(
            "floor",
            "no product: one thread, one table, prepared statements, a hundred jobs at a time",
            20_000,
            ("-m", "benchmarks.peers.raw.child", "worker", "100"),
            measures=("enqueue", "bulk", "drain", "latency", "statements"),
            concurrency=1,
        ),
    ),
    unfinished="SELECT EXISTS (SELECT FROM raw_job WHERE state = 0) OR EXISTS (SELECT FROM raw_job WHERE state = 1)",
    is_ours=True,
)
