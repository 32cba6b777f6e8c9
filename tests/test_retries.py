"""Backoffs: from the number of the attempt to a delay."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from django_jobs.exceptions import InvalidOption
from django_jobs.retries import LONGEST_DELAY, Backoff, exponential, fixed, linear, to_seconds
from django_jobs.task import DEFAULT_BACKOFF


def delays(backoff: Backoff, attempt: int, times: int = 200) -> list[float]:
    """Ask a backoff often enough that its jitter shows."""
    result = SimpleNamespace(errors=[None] * (attempt - 1))
    return [to_seconds(backoff(ValueError(), result) or 0) for _ in range(times)]


@pytest.mark.parametrize(("attempt", "middle"), [(1, 2), (2, 4), (3, 8), (10, 1024), (12, 3600), (32767, 3600)])
def test_the_default_doubles_from_two_seconds_to_an_hour_with_a_quarter_of_jitter(attempt: int, middle: float) -> None:
    asked = delays(DEFAULT_BACKOFF, attempt)

    assert middle * 0.75 <= min(asked) < max(asked) <= middle * 1.25


def test_the_default_never_retries_at_once() -> None:
    assert min(delays(DEFAULT_BACKOFF, 1)) > 0


def test_an_exponential_backoff_without_jitter_is_exact() -> None:
    backoff = exponential(first=1, factor=3, longest=20, jitter=0)

    assert [delays(backoff, attempt, 1)[0] for attempt in (1, 2, 3, 4)] == [1, 3, 9, 20]


def test_a_linear_backoff_adds_its_step_each_time() -> None:
    backoff = linear(step=10, longest=25, jitter=0)

    assert [delays(backoff, attempt, 1)[0] for attempt in (1, 2, 3)] == [10, 20, 25]


@pytest.mark.parametrize("delay", [90, timedelta(minutes=1.5)])
def test_a_fixed_backoff_takes_seconds_or_a_timedelta(delay: Any) -> None:
    assert set(delays(fixed(delay), 5)) == {90.0}


def test_jitter_spreads_a_fixed_backoff() -> None:
    asked = delays(fixed(100, jitter=0.1), 1)

    assert 90 <= min(asked) < max(asked) <= 110


@pytest.mark.parametrize(("delay", "seconds"), [(0, 0), (1.5, 1.5), (timedelta(days=366), LONGEST_DELAY)])
def test_a_delay_is_a_number_of_seconds_or_a_timedelta(delay: Any, seconds: float) -> None:
    assert to_seconds(delay) == seconds


@pytest.mark.parametrize(
    "delay", ["5", None, True, -1, timedelta(seconds=-1), float("nan"), float("inf"), 10**9, timedelta(days=367)]
)
def test_any_other_delay_is_refused(delay: Any) -> None:
    with pytest.raises(InvalidOption, match="A delay "):
        to_seconds(delay)


def test_a_fixed_backoff_with_a_bad_delay_is_refused_where_it_is_made() -> None:
    with pytest.raises(InvalidOption):
        fixed(-1)
