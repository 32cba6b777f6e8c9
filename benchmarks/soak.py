"""Run workers under random faults for a while, then ask whether anything was lost, doubled or forgotten.

    make soak                                       five minutes
    make soak ARGS="--minutes 30 --seed 7"          longer, and the same faults and jobs as another run with this seed

A throwaway PostgreSQL, a fleet of ``runworker`` commands that are started again when they end, a producer that enqueues every
kind of job, and faults drawn by chance: processes killed, frozen and stopped, sessions cut, the server crashed and
frozen, rows and tables locked, jobs cancelled, the queue paused. Jobs write a ledger past the database. When the time is up the
faults stop, all jobs get time to finish, and the ledger and the jobs are compared: see ``soaking/invariants.py``.
The seed is printed; it decides which faults and jobs come in which order, the machine decides when exactly.
Ends with 1 when anything broke.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from example_project.postgres import running_postgres

from .soaking.order import Order


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"Soak of {given.minutes:g} minutes, seed {seed}: repeat it with --seed {seed}.", flush=True)

    with tempfile.TemporaryDirectory(prefix="soak-") as directory, running_postgres(durable=True) as url:
        _set_up(url)
        from .soaking.run import soak

        log = given.log or Path(directory) / "log"
        return soak(Order(given.minutes * 60, seed, given.rate, given.commands, url, Path(directory), log))


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--minutes", type=float, default=5.0, help="how long the faults go on; default 5")
    made.add_argument("--seed", type=int, help="decides on faults and jobs; default: by chance")
    made.add_argument("--rate", type=float, default=40.0, help="jobs a second; default 40")
    made.add_argument("--commands", type=int, default=2, help="runworker commands of two workers each; default 2")
    made.add_argument("--log", type=Path, help="keep what the workers write in this file")
    return made


def _set_up(url: str) -> None:
    os.environ |= {
        "DATABASE_URL": url,
        "DJANGO_SETTINGS_MODULE": "benchmarks.soaking.settings",
        # By this the faults tell our own sessions from those of the workers.
        "PGAPPNAME": "soak",
    }
    import django
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE counter (value int NOT NULL); INSERT INTO counter VALUES (0)")
        # Without a constraint: a second effect must be seen, not refused.
        cursor.execute("CREATE TABLE effect (job_id bigint NOT NULL)")
    _declare()
    connection.close()


def _declare() -> None:
    from django_jobs.models import Queue, Schedule

    from .soaking.tasks import MOST_NARROW, NARROW, TICKS, tick

    Queue.objects.declare(NARROW, max_running=MOST_NARROW)
    Schedule.objects.declare(TICKS, task=tick, cron="* * * * * *", catch_up="all", catch_up_limit=1000)


if __name__ == "__main__":
    sys.exit(main())
