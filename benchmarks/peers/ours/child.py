"""Our producer."""

from __future__ import annotations

import os

import django
from django.core.management import call_command

from benchmarks.peers.producing import Producer, arguments, serve


class Ours(Producer):
    packages = ("django", "psycopg", "django-db-jobs")

    def setup(self) -> None:
        from benchmarks.peers.shelf.models import fill

        call_command("migrate", run_syncdb=True, verbosity=0)
        fill()

    def enqueue(self, job: str, number: int) -> None:
        from . import tasks

        getattr(tasks, job).enqueue(*arguments(job, number))

    def enqueue_many(self, job: str, count: int) -> None:
        from django_jobs.models import Queue

        from . import tasks

        if "BENCH_LIMITS" in os.environ:
            Queue.objects.declare("default", concurrency=10**6, max_running=10**6, rate_limit=10**8, rate_window=1.0)

        getattr(tasks, job).enqueue_many([(arguments(job, number), {}) for number in range(count)])


if __name__ == "__main__":
    django.setup()
    serve(Ours())
