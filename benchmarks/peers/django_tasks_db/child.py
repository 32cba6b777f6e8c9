"""The producer of django-tasks-db."""

from __future__ import annotations

import django

from benchmarks.peers.framework_producer import FrameworkProducer
from benchmarks.peers.producing import serve


class DjangoTasksDbProducer(FrameworkProducer):
    packages = ("django-tasks-db", "django", "psycopg")


if __name__ == "__main__":
    django.setup()
    serve(DjangoTasksDbProducer())
