"""The producer of django-ox."""

from __future__ import annotations

import django

from benchmarks.peers.framework_producer import FrameworkProducer
from benchmarks.peers.producing import arguments, serve


class DjangoOxProducer(FrameworkProducer):
    packages = ("django-ox", "django", "psycopg")

    def enqueue_many(self, job: str, count: int) -> None:
        from django_ox.bulk import enqueue_many

        enqueue_many(self.task(job), [(arguments(job, number), {}) for number in range(count)])


if __name__ == "__main__":
    django.setup()
    serve(DjangoOxProducer())
