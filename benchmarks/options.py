"""The command line: which peers, which measures, how often. A name that does not exist is answered by those that do."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .measures.catalog import MEASURES
from .measures.measure import Measure
from .peers.catalog import PEERS
from .peers.peer import Peer, Variant


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--peers",
        type=chosen_peers,
        default=chosen_peers(""),
        metavar="A,B:C",
        help="only these: a peer with all its variants, or peer:variant; the first is what others are compared with",
    )
    made.add_argument(
        "--measures", type=chosen_measures, default=MEASURES, metavar="X,Y", help="only these, in this order"
    )
    made.add_argument("--repeat", type=positive, default=3, metavar="N", help="how often each cell is run; default 3")
    made.add_argument("--quick", action="store_true", help="small numbers: to see that all works, not how fast")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every value to this file as well")
    made.add_argument("--list", action="store_true", help="list peers, variants and measures, and end")
    return made


def chosen_peers(names: str) -> list[tuple[Peer, Variant]]:
    """Return the variants that a list of names means; all of them for an empty one."""
    known = {f"{peer.name}:{variant.name}": (peer, variant) for peer in PEERS for variant in peer.variants}
    if not names:
        return list(known.values())
    chosen: dict[str, tuple[Peer, Variant]] = {}
    for name in names.split(","):
        found = {full: pair for full, pair in known.items() if name in (full, pair[0].name)}
        if not found:
            raise argparse.ArgumentTypeError(f"there is no peer {name!r}; there are {', '.join(known)}")
        chosen |= found
    return list(chosen.values())


def chosen_measures(names: str) -> Sequence[Measure]:
    known = {measure.name: measure for measure in MEASURES}
    for name in names.split(","):
        if name not in known:
            raise argparse.ArgumentTypeError(f"there is no measure {name!r}; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names.split(","))]


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def listing() -> str:
    """Return all peers with their variants' settings, and all measures."""
    lines = ["Measures:"]
    lines += [f"  {measure.name:<12} {measure.title}" for measure in MEASURES]
    lines += ["", "Peers:"]
    lines += [
        f"  {f'{peer.name}:{variant.name}':<28} {variant.settings}" for peer in PEERS for variant in peer.variants
    ]
    return "\n".join(lines)
