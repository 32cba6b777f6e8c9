"""The jobs, as ours."""

from __future__ import annotations

import itertools
import os

from benchmarks.peers import bodies
from benchmarks.peers.shelf.models import take_one
from django_jobs import task

_keys = itertools.count()


def _key_of_its_own() -> str:
    return f"key {next(_keys)}"


noop = task(concurrency_key=_key_of_its_own)(bodies.noop) if "BENCH_KEYS" in os.environ else task(bodies.noop)
stamp = task(bodies.stamp)
nap = task(bodies.nap)


@task
def orm(number: int) -> None:
    bodies.noop()
    take_one(number)
