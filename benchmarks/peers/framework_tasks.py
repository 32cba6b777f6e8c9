"""The jobs of the peers that are backends of Django's tasks framework."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("django.tasks"):
    from django.tasks import task
else:
    from django_tasks import task

from benchmarks.peers import bodies
from benchmarks.peers.shelf.models import take_one


@task
def noop() -> None:
    bodies.noop()


@task
def stamp(number: int) -> None:
    bodies.stamp(number)


@task
def nap() -> None:
    bodies.nap()


@task
def orm(number: int) -> None:
    bodies.noop()
    take_one(number)
