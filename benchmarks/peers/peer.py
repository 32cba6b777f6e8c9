"""What the benchmark has to know about a peer. Read by the benchmark itself, which has no peer installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PEERS = Path(__file__).parent
# The measures of a variant that differs in its worker only.
OF_WORKERS = (
    *("drain", "drain2", "latency", "sleep", "orm", "finished", "pending", "scheduled", "held"),
    *("idle", "memory", "statements"),
)
# A seed that is not SQL: the peer's own way to enqueue many.
ENQUEUED = "enqueued"


@dataclass(frozen=True, eq=False)
class Variant:
    """One way to run a peer's worker.

    ``pace`` is about how many no-op jobs it runs a second: the number of jobs of a measure follows from it.
    ``worker`` is what its interpreter is started with, ``environment`` what its worker and producer find there.
    """

    name: str
    settings: str
    pace: int
    worker: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    # Only in these measures; empty: in all.
    measures: tuple[str, ...] = ()
    # How many job bodies run at once, if that is limited.
    concurrency: int | None = 10


@dataclass(frozen=True, eq=False)
class Peer:
    """``unfinished`` is SQL for "is there a job that has not ended?", and must stay cheap in a full table.

    ``seeds`` has SQL that writes so many rows (``{count}``) that are ``finished``, ``pending`` or ``scheduled``; ENQUEUED
    for pending ones means that the peer enqueues them itself.
    """

    name: str
    variants: tuple[Variant, ...]
    unfinished: str
    seeds: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    least_python: tuple[int, int] = (3, 11)
    is_django: bool = False
    # What a variant's ``worker`` gets to run two worker processes; None: it is started twice.
    two_processes: tuple[str, ...] | None = None
    # Whether it runs in the environment of this program, with this checkout.
    is_ours: bool = False

    @property
    def requirements(self) -> Path:
        return PEERS / self.name / "requirements.txt"

    @property
    def child(self) -> str:
        return f"benchmarks.peers.{self.name}.child"
