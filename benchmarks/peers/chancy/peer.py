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
)
