"""The jobs, as ours."""

from __future__ import annotations

from benchmarks.peers import bodies
from benchmarks.peers.shelf.models import take_one
from django_jobs import task

noop = task(bodies.noop)
stamp = task(bodies.stamp)
nap = task(bodies.nap)


@task
def orm(number: int) -> None:
    bodies.noop()
    take_one(number)
