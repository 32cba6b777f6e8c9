"""awa: a core in Rust with Python bindings; job rows are appended, not updated."""

from __future__ import annotations

import json

from benchmarks.peers.peer import ENQUEUED, OF_WORKERS, Peer, Variant

_WORKER = ("-m", "benchmarks.peers.awa.child", "worker")
_DEFAULT = {"queue": {"name": "default", "max_workers": 10}, "connections": 10}
_TUNED = {
    "queue": {"name": "default", "max_workers": 256, "claimers": 2, "claim_batch_size": 512},
    "connections": 20,
}

AWA = Peer(
    name="awa",
    variants=(
        Variant("default", "AsyncClient, async handlers, 10 workers", 900, (*_WORKER, json.dumps(_DEFAULT))),
        Variant(
            "tuned",
            "256 workers, claimers 2, claim_batch_size 512, pool of 20: its best",
            5_000,
            (*_WORKER, json.dumps(_TUNED)),
            measures=OF_WORKERS,
            concurrency=256,
        ),
    ),
    seeds={"pending": ENQUEUED},
    # Its view awa.jobs takes seconds for this. Ready entries stay until their segment is dropped with all that ended in it.
    unfinished="""
        SELECT (SELECT count(*) FROM awa.ready_entries) > (SELECT count(*) FROM awa.done_entries)
            + (SELECT coalesce(sum(completed_count), 0) FROM awa.receipt_completion_batches)
    """,
)
