"""The jobs of the peers that are backends of Django's tasks framework."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from benchmarks.peers import bodies
from benchmarks.peers.shelf.models import take_one

# Django 5.2 has the framework in a package of its own.
task = import_module("django.tasks" if find_spec("django.tasks") else "django_tasks").task


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
