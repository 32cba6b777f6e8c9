"""What is asked of a soak."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Order(NamedTuple):
    """``seconds`` of faults, ``rate`` jobs a second, so many ``runworker`` commands on the database at ``url``."""

    seconds: float
    seed: int
    rate: float
    commands: int
    url: str
    directory: Path
    log: Path
