"""The producer of a peer that is a backend of Django's tasks framework."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.db import transaction

from benchmarks.peers.producing import Producer, arguments


class FrameworkProducer(Producer):
    def setup(self) -> None:
        from benchmarks.peers.shelf.models import fill

        call_command("migrate", run_syncdb=True, verbosity=0)
        fill()

    def task(self, job: str) -> Any:
        from benchmarks.peers import framework_tasks

        return getattr(framework_tasks, job)

    def enqueue(self, job: str, number: int) -> None:
        self.task(job).enqueue(*arguments(job, number))

    def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue one by one in one transaction: the framework itself has no way to enqueue many."""
        task = self.task(job)
        with transaction.atomic():
            for number in range(count):
                task.enqueue(*arguments(job, number))
