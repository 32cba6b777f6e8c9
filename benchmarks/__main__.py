"""Measure django_jobs and its peers on one throwaway PostgreSQL, in turns, and print what came out.

    make bench                                          everything; takes a few hours
    make bench ARGS="--quick"                           everything with small numbers
    make bench ARGS="--peers ours,pgqueuer --measures drain,latency --repeat 5 --json drain.json"

The server is the embedded PostgreSQL of the demo with its own defaults: every commit waits for the disk. Each peer has
a virtual environment of its own under .bench/, with the versions that are pinned in its folder, and its log under
.bench/logs/. A peer that cannot be installed is left out, with the reason below the tables.

How to read a table: a cell is the median of the repetitions, with the least and the greatest value in brackets. The
column before the last says how many times as good the first row is as this one. Compare numbers of one run only: a
machine drifts by a fifth from minute to minute, and whatever else it does at the time takes part. Processor times
are of the worker with all its processes and of the whole server; they come from ticks of 10 ms.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from . import options, output
from .run import Results, run
from .server import running_server
from .sizes import FULL, QUICK


def main(arguments: Sequence[str] | None = None) -> int:
    given = options.parser(__doc__).parse_args(arguments)
    if given.list:
        print(options.listing())
        return 0
    sizes = QUICK if given.quick else FULL
    conditions = output.conditions(sizes, given.repeat)
    results = Results()
    with running_server() as server:
        conditions |= {"postgresql": server.version, "postgresql_settings": server.settings()}
        try:
            run(server, given.peers, given.measures, given.repeat, sizes, results)
        finally:
            # Also after a Ctrl-C: what has been measured by then counts.
            document = output.as_json(results, given.measures, conditions)
            if given.json:
                given.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
            print(output.heading(conditions), output.tables(results, given.measures), sep="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
