"""How much each measure does: the numbers of a full run and of a quick one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Durations are in seconds. A drain has as many jobs as its peer does in ``drain``, within the bounds."""

    drain: float = 4.0
    fewest: int = 500
    most: int = 100_000
    single: float = 1.5
    bulk: int = 10_000
    latencies: int = 200
    naps: int = 1_000
    rows: int = 1_000_000
    churn: int = 200_000
    churn_seconds: float = 60.0
    producers: int = 10
    settle: float = 3.0
    idle: float = 10.0
    counted: int = 1_000


FULL = Sizes()
QUICK = Sizes(
    drain=0.5,
    fewest=100,
    most=10_000,
    single=0.3,
    bulk=1_000,
    latencies=40,
    naps=200,
    rows=20_000,
    churn=5_000,
    churn_seconds=3.0,
    producers=4,
    settle=1.0,
    idle=3.0,
    counted=500,
)
