"""One soak, from the first job to the verdict. Import it once Django is set up."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import psycopg
from django.db import Error, connection
from django.db.models import Count

from django_jobs.models import Attempt, Job

from . import ledger
from .faults import Scene, draw, name_of
from .fleet import Fleet
from .gauges import Gauges
from .invariants import INVARIANTS, violations
from .load import Load, stop_the_schedule, wait_until_done
from .order import Order

FAULTS_AT_ONCE = 2
# Between two faults, in seconds, on average.
PAUSE = 3.0
# How long the jobs that are left may take once the faults have stopped, in seconds.
PATIENCE = 180.0
MOST_SHOWN = 10


def soak(order: Order) -> int:
    """Run it and print what came out; return the exit code."""
    lines = order.directory / "ledger"
    env = {"DATABASE_URL": order.url, ledger.VARIABLE: str(lines)}
    load = Load(order.rate, order.seed)
    with Fleet(order.commands, env, order.log) as fleet:
        gauges = Gauges(fleet)
        load.start()
        gauges.start()
        happened = _let_faults_happen(Scene(fleet, load.promised), order)
        load.stop()
        stop_the_schedule()
        began = time.monotonic()
        unfinished = wait_until_done(PATIENCE)
        gauges.stop()
        drained = time.monotonic() - began
    print(f"\nFaults: {happened.total()}; {fleet.started} runworker commands were started")
    for name, count in happened.most_common():
        print(f"  {count:>7,}  {name}")
    print(f"Enqueues that the faults refused: {load.promised.errors.total()}")
    _report_jobs(drained)
    print("Gauges, medians of the thirds of the run:", *gauges.summary(), sep="\n  ")
    return _judge(load, lines, unfinished, gauges.rising(), order.log)


def _let_faults_happen(scene: Scene, order: Order) -> Counter[str]:
    happened: Counter[str] = Counter()
    until = time.monotonic() + order.seconds

    def go_on(number: int) -> None:
        chance = random.Random(f"faults {number} {order.seed}")
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, chance.expovariate(1 / (PAUSE * FAULTS_AT_ONCE))))
            fault = draw(chance)
            try:
                fault(scene, chance)
                happened[name_of(fault)] += 1
            except (Error, psycopg.Error, psutil.Error):
                # The other fault has taken the server away.
                connection.close()
        connection.close()

    threads = [threading.Thread(target=go_on, args=(number,)) for number in range(FAULTS_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return happened


def _report_jobs(drained: float) -> None:
    print(f"Jobs, {drained:.0f} s after the last fault:")
    for state, count in Job.objects.order_by("state").values_list("state").annotate(count=Count("pk")):
        print(f"  {count:>7,}  {state}")
    print("Attempts that did not succeed:")
    for outcome, count in Attempt.objects.order_by("outcome").values_list("outcome").annotate(count=Count("pk")):
        print(f"  {count:>7,}  {outcome}")


def _judge(load: Load, lines: Path, unfinished: list[dict[str, Any]], rising: list[str], log: Path) -> int:
    print(f"Ledger: {ledger.load(lines):,} lines")
    found = violations(load.promised)
    for name in INVARIANTS:
        rows = found.get(name, [])
        print(f"  {'BROKEN' if rows else 'holds '}  {name}" + (f": {len(rows)}" if rows else ""))
        for row in rows[:MOST_SHOWN]:
            print(f"            job {row[0]}: {row[1]}")
    for job in unfinished[:MOST_SHOWN]:
        print(f"  unfinished: {job}")
    for line in rising:
        print(f"  RISES   {line}")
    count = sum(map(len, found.values())) + len(rising)
    print(f"{count} violations." if count else "Zero violations.", flush=True)
    if count and log.exists():
        print(f"The end of what the workers wrote:\n{log.read_text(errors='replace')[-3000:]}")
    return 1 if count else 0
