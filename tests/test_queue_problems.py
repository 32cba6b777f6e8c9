"""What a queue's settings may be, and which worker an expression matches: the judgement by itself."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from django_jobs.models import Queue
from django_jobs.models.queue_problems import (
    LONGEST_EXPRESSION,
    SETTINGS,
    matches_tags,
    problem_of,
    problems_of,
)
from django_jobs.worker.identity import tags_of

# Settings that cannot work, whoever wrote them, and a part of what is said about each.
BAD: list[tuple[str, Any, str]] = [
    ("tags", None, "must be a list of texts, not None"),
    ("tags", "gpu", "must be a list of texts, not 'gpu'"),
    ("tags", 5, "must be a list of texts, not 5"),
    ("tags", {"gpu": 1}, "must be a list of texts"),
    ("tags", ["gpu", 5], "must be a list of texts; 5 is none"),
    ("tags", [["gpu"]], "must be a list of texts; ['gpu'] is none"),
    ("tags", [""], "has the expression '', which is empty"),
    ("tags", ["gpu", "host=("], "has the expression 'host=(', which is no regular expression: missing )"),
    ("tags", ["**"], "has the expression '**', which is no regular expression: nothing to repeat"),
    ("tags", ["a{99999999999999999999}"], "which is no regular expression: the repetition number is too large"),
    ("tags", ["x" * (LONGEST_EXPRESSION + 1)], "has an expression of 501 characters"),
    ("tags", ["x"] * 101, "must be at most 100 expressions, not 101"),
    ("concurrency", 0, "must be at least 1, not 0. So that none of its jobs starts, pause the queue."),
    ("concurrency", -1, "must be a whole number between 1 and"),
    ("concurrency", 2**31, "must be a whole number between 1 and"),
    ("concurrency", 1.5, "must be a whole number between 1 and"),
    ("concurrency", True, "must be a whole number between 1 and"),
    ("concurrency", "many", "must be a whole number between 1 and"),
    ("max_running", 0, "pause the queue"),
    ("max_running", 10**5000, "must be a whole number between 1 and"),
    ("rate_limit", 0, "pause the queue"),
    ("rate_window", 0, "must be between"),
    ("rate_window", -1.0, "must be between"),
    ("rate_window", math.nan, "must be between 0.001 s and 316224000 s (ten years), not nan s"),
    ("rate_window", math.inf, "not inf s"),
    ("rate_window", "1 s", "must be a number of seconds or a timedelta, not '1 s'"),
    ("rate_window", 10**5000, "must be between"),
    ("executor", "process", "must be one of '', 'thread', not 'process'"),
    ("executor", None, "must be one of"),
    ("timeout", 0, "must be between"),
    ("timeout", -5, "must be between"),
    ("poll_interval", 0, "must be between 0.01 s"),
    ("raise_after", math.nan, "must be between"),
    ("raise_by", 0, "must be a whole number between 1 and 200"),
    ("raise_by", 201, "must be a whole number between 1 and 200"),
    ("raise_by", None, "must be a whole number between 1 and 200"),
    ("keep_succeeded", timedelta(seconds=-1), "must be between 0 s"),
    ("keep_failed", timedelta.max, "must be between 0 s"),
    ("keep_failed", "soon", "must be a number of seconds or a timedelta"),
]

GOOD: list[dict[str, Any]] = [
    {"tags": []},
    {"tags": ["*"]},
    {"tags": ("*", "gpu")},
    {"tags": ["gpu", "hostname=web-[0-9]+", r"python=3\.1[12]\..*", "x" * LONGEST_EXPRESSION]},
    {"concurrency": 1, "max_running": 2**31 - 1},
    {"rate_limit": 1, "rate_window": 0.001},
    {"rate_limit": None, "rate_window": None},
    {"executor": ""},
    {"executor": "thread"},
    {"timeout": 0.5, "poll_interval": 0.01, "raise_after": 60, "raise_by": 200},
    {"keep_succeeded": timedelta(), "keep_failed": timedelta(days=3650)},
    {name: None for name in SETTINGS if name not in ("tags", "executor", "raise_by")},
]


# Named by number: some of these have no text.
@pytest.mark.parametrize(("setting", "value", "problem"), BAD, ids=range(len(BAD)))
def test_a_setting_that_cannot_work_is_named_with_what_is_wrong(setting: str, value: Any, problem: str) -> None:
    problems = problems_of({setting: value, "rate_limit": 1, "rate_window": 1.0} | {setting: value})

    assert list(problems) == [setting]
    assert problem in problems[setting]
    assert len(problems[setting]) < 700


@pytest.mark.parametrize("values", GOOD)
def test_settings_that_can_work_have_no_problem(values: dict[str, Any]) -> None:
    assert problem_of(values) == ""


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"rate_limit": 5, "rate_window": None}, "rate_window is missing: rate_limit goes with it."),
        ({"rate_limit": None, "rate_window": 5.0}, "rate_limit is missing: rate_window goes with it."),
        ({"rate_limit": 5}, "rate_window is missing: rate_limit goes with it."),
    ],
)
def test_a_rate_needs_both_of_its_halves(values: dict[str, Any], problem: str) -> None:
    assert problem_of(values) == problem


def test_all_problems_are_told() -> None:
    problem = problem_of({"tags": ["("], "concurrency": 0})

    assert "tags has the expression '('" in problem
    assert "concurrency must be at least 1" in problem


def test_a_queue_without_settings_has_no_problem() -> None:
    assert Queue(name="mail").problem == ""


# Tags


@pytest.mark.parametrize(
    ("expressions", "does_serve"),
    [
        (["*"], True),
        ([], False),
        (["gpu"], True),
        (["GPU"], False),
        (["gp"], False),
        (["gpu."], False),
        (["gpu|cpu"], True),
        (["cpu", "gpu"], True),
        (["cpu", "tpu"], False),
        (["cpu", "*"], True),
        ([".*"], True),
        (["zone=[a-c]"], True),
        (["one=b"], False),
        (["hostname=.+"], True),
        (["worker_id=web-1"], True),
        (["worker_id=web"], False),
        ([r"python=3\.\d+\.\d+.*"], True),
        (["arch=.+"], True),
        (["os=(linux|darwin)"], True),
    ],
)
def test_an_expression_must_be_the_whole_of_a_tag_and_one_is_enough(expressions: list[str], does_serve: bool) -> None:
    assert matches_tags(expressions, tags_of("web-1", ["gpu", "zone=b"])) is does_serve


def test_tags_that_are_no_texts_match_nothing() -> None:
    assert not matches_tags(["5", "None"], [5, None, ["5"]])
