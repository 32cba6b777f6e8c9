"""When a failed job runs again: from the number of the attempt to a delay. Pure.

A backoff is a callable ``(exception, task_result) -> seconds | timedelta | None``; None means "do
not retry". ``task_result.errors`` has the earlier failures: attempts that were snoozed or given back are none.
``exponential()`` is the default of every task.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .exceptions import Delay, InvalidOption

Backoff = Callable[[BaseException, Any], Delay | None]

# A retry later than this is a mistake in a backoff; it also keeps run_after inside every database's range.
LONGEST_DELAY = 366 * 24 * 3600.0


def to_seconds(delay: Delay) -> float:
    """Return ``delay`` in seconds, between 0 and LONGEST_DELAY. Raise InvalidOption for anything else."""
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise InvalidOption(f"A delay is a number of seconds or a timedelta, not {delay!r}.")
    if not 0 <= seconds <= LONGEST_DELAY:
        raise InvalidOption(f"A delay lies between 0 and {LONGEST_DELAY:.0f} seconds, not {delay!r}.")
    return float(seconds)


@dataclass(frozen=True)
class _Growing:
    """A delay that depends on how often the job has failed before. Values, not closures, so that tasks can be pickled."""

    first: float
    factor: float
    step: float
    longest: float
    jitter: float

    def __call__(self, exception: BaseException, task_result: Any) -> float:
        earlier = len(task_result.errors)
        # 64 doublings pass any ``longest``; more would overflow a float.
        grown = self.first * self.factor ** min(earlier, 64) + self.step * earlier
        return spread(min(grown, self.longest), self.jitter)


def exponential(first: float = 2.0, factor: float = 2.0, longest: float = 3600.0, jitter: float = 0.25) -> Backoff:
    """Wait ``first`` seconds, then ``factor`` times as long each time, at most ``longest``.

    Each delay is spread by plus or minus ``jitter`` (a fraction), so that jobs that failed together do
    not come back together: with the defaults the first lies between 1.5 and 2.5 s, the second
    between 3 and 5 s.
    """
    return _Growing(first, factor, 0.0, longest, jitter)


def linear(step: float = 10.0, longest: float = 3600.0, jitter: float = 0.25) -> Backoff:
    """Wait ``step`` seconds more each time, at most ``longest``, spread by plus or minus ``jitter``."""
    return _Growing(step, 1.0, step, longest, jitter)


def fixed(delay: Delay, jitter: float = 0.0) -> Backoff:
    """Wait ``delay`` (seconds or timedelta) each time, spread by plus or minus ``jitter``."""
    seconds = to_seconds(delay)
    return _Growing(seconds, 1.0, 0.0, seconds, jitter)


def spread(seconds: float, jitter: float) -> float:
    """Return ``seconds`` times a random factor between 1 - jitter and 1 + jitter."""
    return seconds * random.uniform(1 - jitter, 1 + jitter)
