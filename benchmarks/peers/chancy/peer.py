"""chancy: completions are written once a second."""

from __future__ import annotations

from benchmarks.peers.peer import Peer, Variant

CHANCY = Peer(
    name="chancy",
    variants=(
        Variant(
            "thread",
            "ThreadedExecutor, concurrency 10, eager_polling",
            1_500,
            ("-m", "benchmarks.peers.chancy.child", "worker"),
        ),
    ),
    unfinished="SELECT EXISTS (SELECT FROM chancy_jobs WHERE state IN ('pending', 'running', 'retrying'))",
    seeds={
        state: f"""
            INSERT INTO chancy_jobs (id, queue, func, state, attempts, scheduled_at, started_at, completed_at)
            SELECT gen_random_uuid(), 'default', 'benchmarks.peers.chancy.child.noop', '{status}', {attempts},
                now() + interval '{delay}', {ended}, {ended}
            FROM generate_series(1, {{count}})
        """
        for state, status, attempts, delay, ended in (
            ("finished", "succeeded", 1, "0", "now()"),
            ("pending", "pending", 0, "0", "NULL::timestamptz"),
            ("scheduled", "pending", 0, "1 day", "NULL::timestamptz"),
        )
    },
)
