"""The results as Markdown tables and as JSON."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .environments import ROOT
from .measures.measure import Measure, Metric
from .run import Results, Series
from .sizes import Sizes
from .summary import Summary, ratio, summarize


def heading(conditions: Mapping[str, Any]) -> str:
    return (
        f"Commit {conditions['commit']}, Python {conditions['python']}, PostgreSQL {conditions['postgresql']}, "
        f"{conditions['cpus']} CPUs, median (least–most) of {conditions['repeat']}"
    )


def tables(results: Results, measures: Sequence[Measure]) -> str:
    """Return one table per measure, and below them who is missing and why."""
    parts = [table(measure, results) for measure in measures]
    if results.skipped:
        lines = [f"- {peer}: {reason}" for peer, reason in results.skipped.items()]
        parts.append("\n".join(["Left out:", "", *lines]))
    return "\n\n".join(parts) + "\n"


def table(measure: Measure, results: Results) -> str:
    series = results.series.get(measure.name, {})
    first = measure.metrics[0]
    reference = summarize(next(iter(series.values()))[first.name]) if series else None
    rows = [
        [
            "peer",
            *(", ".join(filter(None, (metric.name, metric.unit))) for metric in measure.metrics),
            f"× {next(iter(series), '')}",
            "jobs",
        ]
    ]
    for name, values in series.items():
        rows.append([name, *_cells(measure, values), _ratio(values, first, reference), _jobs(values)])
    failures = "".join(f"\n\n{name} failed: {why}" for name, why in results.failed.get(measure.name, {}).items())
    return f"### {measure.name}: {measure.title}\n\n{aligned(rows)}{failures}"


def _cells(measure: Measure, values: Series) -> list[str]:
    return [shown(summarize(values[m.name]), m) if m.name in values else "–" for m in measure.metrics]


def _jobs(values: Series) -> str:
    return f"{max(values['jobs']):,.0f}" if "jobs" in values else ""


def _ratio(values: Series, metric: Metric, reference: Summary | None) -> str:
    if reference is None or metric.name not in values:
        return "–"
    times = ratio(summarize(values[metric.name]), reference, more_is_better=metric.more_is_better)
    return "–" if times is None else f"{times:.2f}"


def shown(summary: Summary, metric: Metric) -> str:
    """Return the median, with least and most in brackets if there was more than one repetition."""
    median, least, most = (f"{value:,.{metric.digits}f}" for value in summary)
    return median if least == most else f"{median} ({least}–{most})"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are straight as plain text, too: names left, numbers right."""
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(row, widths) for row in (rows[0], rule, *rows[1:]))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return "| " + " | ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]) + " |"


def as_json(results: Results, measures: Sequence[Measure], conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that was measured, each value of each repetition, with the conditions."""
    return {
        "conditions": dict(conditions),
        "versions": results.versions,
        "skipped": results.skipped,
        "measures": {
            measure.name: {
                "title": measure.title,
                "units": {metric.name: metric.unit for metric in measure.metrics},
                "failed": results.failed.get(measure.name, {}),
                "peers": {name: _numbers(series) for name, series in results.series.get(measure.name, {}).items()},
            }
            for measure in measures
        },
    }


def _numbers(series: Series) -> dict[str, dict[str, Any]]:
    return {metric: {**summarize(values)._asdict(), "values": values} for metric, values in series.items()}


def conditions(sizes: Sizes, repeat: int) -> dict[str, Any]:
    """Return where and on what the numbers were made."""
    return {
        "commit": _git("describe", "--always", "--dirty", "--abbrev=12"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "repeat": repeat,
        "sizes": asdict(sizes),
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
