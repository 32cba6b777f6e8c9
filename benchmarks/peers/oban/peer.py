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
    least_python=(3, 12),
)
