"""Take the measures: every peer in turn, then all of them again, so that the machine's drift hits all alike."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from .cell import Cell
from .environments import CannotInstall, python_of
from .measures.measure import Measure
from .peers.peer import Peer, Variant
from .producer import PeerFailed
from .server import Server
from .sizes import Sizes

# Values of one metric, by repetition.
Series = dict[str, list[float]]


@dataclass
class Results:
    """What came out: series by measure and then by ``peer:variant``, and why some are missing."""

    series: dict[str, dict[str, Series]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, measure: str, name: str, values: Mapping[str, float]) -> None:
        series = self.series.setdefault(measure, {}).setdefault(name, {})
        for metric, value in values.items():
            series.setdefault(metric, []).append(value)


Chosen = Sequence[tuple[Peer, Variant]]


def run(
    server: Server, chosen: Chosen, measures: Sequence[Measure], repeat: int, sizes: Sizes, results: Results
) -> None:
    """Take every measure of every variant ``repeat`` times. What has been taken is in ``results`` at once."""
    pythons = install(chosen, results)
    cells = [Cell(server, peer, variant, pythons[peer.name], sizes) for peer, variant in chosen if peer.name in pythons]
    note_versions(cells, results)
    for measure in measures:
        for repetition in range(repeat):
            for cell in cells:
                if applies(measure, cell) and cell.name not in results.failed.get(measure.name, {}):
                    say(f"{measure.name} {repetition + 1}/{repeat} {cell.name}")
                    take(measure, cell, results)


def install(chosen: Chosen, results: Results) -> dict[str, Path]:
    """Return the interpreter of each peer that could be installed, and note why the others could not."""
    pythons = {}
    for peer in dict.fromkeys(peer for peer, _ in chosen):
        say(f"installing {peer.name}")
        try:
            pythons[peer.name] = python_of(peer)
        except CannotInstall as reason:
            results.skipped[peer.name] = str(reason)
            say(f"{peer.name} is left out: {reason}")
    return pythons


def note_versions(cells: Sequence[Cell], results: Results) -> None:
    for cell in cells:
        if cell.peer.name not in results.versions:
            with cell.server.database("versions") as database, cell.producer(database) as producer:
                results.versions[cell.peer.name] = producer.call("versions")


def applies(measure: Measure, cell: Cell) -> bool:
    only = cell.variant.measures
    return measure.applies(cell.peer) and (not only or measure.name in only)


def take(measure: Measure, cell: Cell, results: Results) -> None:
    """Run one cell. A peer that fails is left out of this measure from then on, with what it said."""
    try:
        values = measure.take(cell)
    except Exception as error:  # noqa: BLE001 - hours of others are not lost for one that cannot
        reason = str(error).strip() or repr(error)
        results.failed.setdefault(measure.name, {})[cell.name] = reason
        say(f"  failed: {reason}")
        if not isinstance(error, PeerFailed | psycopg.Error):
            traceback.print_exc()
        return
    results.add(measure.name, cell.name, values)
    say("  " + ", ".join(f"{name} {value:,.{0 if abs(value) >= 100 else 2}f}" for name, value in values.items()))


def say(line: str) -> None:
    """Tell how far the run is. The tables go to standard output, so this does not."""
    print(line, file=sys.stderr, flush=True)
