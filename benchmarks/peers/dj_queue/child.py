"""The producer of dj_queue."""

from __future__ import annotations

import django

from benchmarks.peers.framework_producer import FrameworkProducer
from benchmarks.peers.producing import arguments, serve


class DjQueueProducer(FrameworkProducer):
    packages = ("dj-queue", "django", "psycopg")

    def enqueue_many(self, job: str, count: int) -> None:
        task = self.task(job)
        task.get_backend().enqueue_all([(task, arguments(job, number), {}) for number in range(count)])


if __name__ == "__main__":
    django.setup()
    serve(DjQueueProducer())
