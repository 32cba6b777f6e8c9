"""Entries of DJANGO_JOBS["DUTIES"] that would make a loop spin, or fail at each pass."""

from __future__ import annotations

from typing import Any

import pytest

from django_jobs.exceptions import InvalidOption
from django_jobs.worker.duties import plugin_duties

NOT_CALLABLE = 3


def sweep() -> None:
    """A duty of a plugin."""


def test_a_duty_may_come_round_in_fractions_of_a_second(settings: Any) -> None:
    settings.DJANGO_JOBS = {"DUTIES": [("sweep", 0.5, "tests.test_plugin_duties.sweep")]}

    [duty] = plugin_duties()

    assert duty == ("sweep", 0.5, sweep)


@pytest.mark.parametrize(
    ("seconds", "path", "problem"),
    [
        (0, "sweep", "the seconds must be more than 0, not 0"),
        (-1, "sweep", "the seconds must be more than 0, not -1"),
        (float("nan"), "sweep", "the seconds must be more than 0, not nan"),
        (float("inf"), "sweep", "the seconds must be more than 0, not inf"),
        (5, "NOT_CALLABLE", "3 is not callable"),
    ],
)
def test_a_duty_that_would_never_rest_or_never_work_is_refused(
    settings: Any, seconds: float, path: str, problem: str
) -> None:
    settings.DJANGO_JOBS = {"DUTIES": [("sweep", seconds, f"tests.test_plugin_duties.{path}")]}

    with pytest.raises(InvalidOption, match=problem):
        plugin_duties()
