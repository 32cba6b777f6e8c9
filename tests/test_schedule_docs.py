"""What docs/schedules.md says of expressions is so, and its recipes move what they say they move."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from django_jobs import crontab
from django_jobs.exceptions import InvalidOption
from django_jobs.models import Schedule

DOCS = (Path(__file__).resolve().parent.parent / "docs" / "schedules.md").read_text()
PARIS = ZoneInfo("Europe/Paris")
REFUSED = {"0 0 31 2 *", "0 0 13 * 5#2", "@reboot"}
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def expressions() -> set[str]:
    """Return what looks like an expression between two back-ticks."""
    spans = re.findall(r"`([^`\n]+)`", DOCS)
    found = {span for span in spans if re.fullmatch(r"[\d*/,L#-]+( [\d*/,L#-]+){4,5}", span)}
    names = {name for span in spans for name in span.split() if name.startswith("@") and name[1:].isalpha()}
    return (found | names) - {"@task"}


def recipe(word: str) -> str:
    [code] = [code for code in re.findall(r"(?s)```python\n(.*?)```", DOCS) if word in code]
    return str(code)


class Rows:
    """A manager of another app, which gives these rows whatever is asked."""

    def __init__(self, *rows: Any) -> None:
        self._rows = rows

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self

    def __iter__(self) -> Any:
        return iter(self._rows)


def test_the_expressions_of_the_docs_are_what_it_says_of_them() -> None:
    found = expressions()

    refused = set()
    for expression in found:
        try:
            crontab.validate(expression)
        except InvalidOption:
            refused.add(expression)

    assert len(found) > 15
    assert refused == REFUSED


@pytest.mark.parametrize("expression", ["30 2 * * *"])
def test_a_fixed_hour_runs_once_on_each_day_of_the_docs_table(expression: str) -> None:
    before_gap, before_fold = datetime(2026, 3, 29, tzinfo=PARIS), datetime(2026, 10, 25, tzinfo=PARIS)

    gap = crontab.next_after(expression, before_gap, PARIS)
    fold = crontab.next_after(expression, before_fold, PARIS)

    assert gap is not None
    assert fold is not None
    assert gap.astimezone(PARIS).isoformat() == "2026-03-29T03:00:00+02:00"
    assert fold.astimezone(PARIS).isoformat() == "2026-10-25T02:30:00+02:00"
    after = crontab.next_after(expression, fold, PARIS)
    assert after is not None
    assert after.astimezone(PARIS).day == 26


def test_either_of_two_days_is_enough() -> None:
    moment = crontab.next_after("0 0 13 * 5", datetime(2026, 11, 1, tzinfo=UTC), ZoneInfo("UTC"))

    assert moment == datetime(2026, 11, 6, tzinfo=UTC)


@pytest.mark.django_db
def test_the_rows_of_celery_beat_move(monkeypatch: pytest.MonkeyPatch) -> None:
    common = {
        "args": "[1]",
        "kwargs": '{"b": 2}',
        "start_time": NOON,
        "expires": None,
        "queue": None,
        "crontab": None,
        "clocked": None,
        "enabled": True,
        "task": "tests.tasks.add",
    }
    when = SimpleNamespace(
        minute="30", hour="2", day_of_month="*", month_of_year="*", day_of_week="mon-fri", timezone=PARIS
    )
    moment = SimpleNamespace(clocked_time=datetime(2099, 1, 2, tzinfo=UTC))
    theirs = ModuleType("django_celery_beat.models")
    rows = [
        SimpleNamespace(name="nightly", **common | {"crontab": when, "queue": "mail"}),
        SimpleNamespace(name="once", **common | {"clocked": moment, "enabled": False}),
        SimpleNamespace(name="interval", **common),
    ]
    theirs.PeriodicTask = SimpleNamespace(objects=Rows(*rows))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "django_celery_beat", ModuleType("django_celery_beat"))
    monkeypatch.setitem(sys.modules, "django_celery_beat.models", theirs)

    exec(recipe("django_celery_beat"), {})

    columns = ("name", "cron", "timezone", "args", "kwargs", "queue_name", "start_at", "run_at", "enabled")
    assert list(Schedule.objects.order_by("name").values_list(*columns)) == [
        ("nightly", "30 2 * * mon-fri", "Europe/Paris", [1], {"b": 2}, "mail", NOON, None, True),
        ("once", "", "UTC", [1], {"b": 2}, "", NOON, datetime(2099, 1, 2, tzinfo=UTC), False),
    ]


@pytest.mark.django_db
def test_the_rows_of_django_q2_move(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType("django_q.models")
    rows = [
        SimpleNamespace(pk=1, name="two", func="tests.tasks.add", cron="@daily", args="1, 2", kwargs=None),
        SimpleNamespace(pk=2, name="one", func="tests.tasks.add", cron="0 5 * * 1", args="'x'", kwargs="{'b': [2]}"),
        SimpleNamespace(pk=3, name=None, func="tests.tasks.noop", cron="0 6 * * *", args="", kwargs=""),
    ]
    theirs.Schedule = SimpleNamespace(CRON="C", objects=Rows(*rows))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "django_q", ModuleType("django_q"))
    monkeypatch.setitem(sys.modules, "django_q.models", theirs)

    exec(recipe("django_q.models"), {})

    assert list(Schedule.objects.order_by("name").values_list("name", "cron", "args", "kwargs")) == [
        ("one", "0 5 * * 1", ["x"], {"b": [2]}),
        ("tests.tasks.noop 3", "0 6 * * *", [], {}),
        ("two", "@daily", [1, 2], {}),
    ]
