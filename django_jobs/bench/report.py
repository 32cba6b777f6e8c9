"""The figures of a run, as a table for people and as JSON: medians over the repetitions, with the least and the most."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterator
from typing import Any

import django
from django.conf import settings

from .. import __version__
from .measures import MEASURES
from .run import Figured

_HEAD = ("measure", "median", "min", "max", "unit")


def as_json(figured: Figured) -> dict[str, Any]:
    """Return everything that a later comparison needs, as JSON holds it."""
    order, plan = figured.order, figured.plan
    return {
        "django_jobs": __version__,
        "django": django.get_version(),
        "python": platform.python_version(),
        "server": plan.server,
        "database": plan.database,
        "debug": settings.DEBUG,
        "jobs": order.jobs,
        "repeat": order.repeat,
        "measures": {name: _entry(name, figured) for name in order.measures},
    }


def _entry(name: str, figured: Figured) -> dict[str, Any]:
    if name in figured.failures:
        return {"failed": figured.failures[name]}
    figures = {figure: _summary(figured, name, figure) for figure in MEASURES[name].units}
    return {"jobs": MEASURES[name].jobs(figured.order.jobs), "figures": figures}


def _summary(figured: Figured, name: str, figure: str) -> dict[str, float]:
    values = [each[figure] for each in figured.figures[name]]
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def as_table(figured: Figured) -> str:
    """Return a line for each figure; a measure that failed says why."""
    rows = [_HEAD, *_rows(figured)]
    widths = [max(len(row[column]) for row in rows if len(row) > 2) for column in range(len(_HEAD))]
    widths[0] = max(len(row[0]) for row in rows)
    return "\n".join(_line(row, widths) for row in rows)


def _rows(figured: Figured) -> Iterator[tuple[str, ...]]:
    for name in figured.order.measures:
        measure = MEASURES[name]
        title = measure.title.format(f"{measure.jobs(figured.order.jobs):,}")
        if name in figured.failures:
            yield title, f"failed: {figured.failures[name]}"
            continue
        for figure, (unit, digits) in measure.units.items():
            summary = _summary(figured, name, figure)
            yield title, *(f"{summary[part]:,.{digits}f}" for part in ("median", "min", "max")), unit
            title = ""


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    if len(row) == 2:
        return f"{row[0]:<{widths[0]}}  {row[1]}"
    numbers = "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:4], widths[1:4], strict=True))
    return f"{row[0]:<{widths[0]}}  {numbers}  {row[4]}"
