"""What a measure is: how to take it once, and how to read what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..cell import Cell
from ..peers.peer import Peer

Values = Mapping[str, float]


@dataclass(frozen=True)
class Metric:
    """One number of a measure, with its unit. The first one of a measure is compared between peers."""

    name: str
    unit: str
    digits: int = 0
    more_is_better: bool = True


@dataclass(frozen=True)
class Measure:
    """``take`` runs it once for one peer and returns a value for each metric, and ``jobs``: how many there were."""

    name: str
    title: str
    take: Callable[[Cell], Values]
    metrics: tuple[Metric, ...]
    applies: Callable[[Peer], bool] = lambda peer: True
