"""oban: the Python port of the Elixir job queue."""

from __future__ import annotations

from benchmarks.peers.peer import OF_WORKERS, Peer, Variant

_WORKER = ("-m", "benchmarks.peers.oban.child", "worker")

OBAN = Peer(
    name="oban",
    variants=(
        Variant("default", "queue limit 10, async workers, uvloop", 1_900, (*_WORKER, "async")),
        Variant(
            "sync",
            "queue limit 10, the job's body through asyncio.to_thread",
            2_000,
            (*_WORKER, "sync"),
            measures=OF_WORKERS,
        ),
    ),
    unfinished="""
        SELECT EXISTS (SELECT FROM oban_jobs WHERE state = 'available' AND queue = 'default')
            OR EXISTS (SELECT FROM oban_jobs WHERE state IN ('executing', 'retryable') AND queue = 'default')
    """,
    seeds={
        state: f"""
            INSERT INTO oban_jobs (state, worker, attempt, scheduled_at, completed_at)
            SELECT '{status}', '__main__.noop', {attempt}, timezone('UTC', now()) + interval '{delay}', {completed_at}
            FROM generate_series(1, {{count}})
        """
        for state, status, attempt, delay, completed_at in (
            ("finished", "completed", 1, "0", "timezone('UTC', now())"),
            ("pending", "available", 0, "0", "NULL::timestamp"),
            ("scheduled", "scheduled", 0, "1 day", "NULL::timestamp"),
        )
    },
    least_python=(3, 12),
)
