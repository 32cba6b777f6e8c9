"""From the values of repetitions to a median with its range, and to a ratio."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Summary(NamedTuple):
    """The median, least and greatest of the repetitions of one metric."""

    median: float
    least: float
    most: float


def summarize(values: Sequence[float]) -> Summary:
    return Summary(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least this part of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def ratio(summary: Summary, reference: Summary, *, more_is_better: bool) -> float | None:
    """Return how many times as good as this one the reference is; None where that cannot be said."""
    better, worse = (reference, summary) if more_is_better else (summary, reference)
    return better.median / worse.median if worse.median > 0 and better.median > 0 else None
