"""The producer: enqueues jobs of every kind at a steady rate, and remembers what it was promised."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from django.db import Error, connection, transaction

from django_jobs.models import Job, Schedule

from .tasks import KINDS, TICKS

# One in so many transactions is rolled back after its enqueue, one job in so many is cancelled by somebody.
ROLLED_BACK, CANCELLED = 20, 50


@dataclass
class Promised:
    """What the database has said yes to: ids of jobs by kind, those that were rolled back, those somebody cancelled."""

    kinds: dict[int, str] = field(default_factory=dict)
    undone: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)


class Load(threading.Thread):
    """Enqueues ``rate`` jobs a second until it is told to stop."""

    def __init__(self, rate: float, seed: int) -> None:
        super().__init__(name="load", daemon=True)
        self.promised = Promised()
        self._rate = rate
        self._chance = random.Random(f"load {seed}")
        self._stopping = threading.Event()
        self._names = list(KINDS)
        self._weights = [kind.weight for kind in KINDS.values()]

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        while not self._stopping.wait(self._chance.expovariate(self._rate)):
            try:
                self._enqueue_one()
            except Error as error:
                # Whether it was committed, nobody knows: such a job may be there or not, and must end in any case.
                self.promised.errors[type(error).__name__] += 1
                connection.close()
                self._stopping.wait(0.2)
        connection.close()

    def _enqueue_one(self) -> None:
        name = self._chance.choices(self._names, self._weights)[0]
        kind = KINDS[name]
        arguments, options = kind.arguments(self._chance), kind.options(self._chance)
        task = kind.task.using(meta={"kind": name}, priority=self._chance.choice([0, 0, 0, 5, -5]), **options)
        is_undone = self._chance.random() * ROLLED_BACK < 1
        is_cancelled = self._chance.random() * CANCELLED < 1
        with transaction.atomic():
            job_id = int(task.enqueue(*arguments).id)
            if is_undone:
                transaction.set_rollback(True)
        if is_undone:
            self.promised.undone.add(job_id)
            return
        self.promised.kinds[job_id] = name
        if is_cancelled:
            self.promised.cancelled.add(job_id)
            Job.objects.filter(pk=job_id).cancel()


def stop_the_schedule() -> None:
    """Pause it, however often that takes: the server may still be recovering."""
    while True:
        try:
            Schedule.objects.pause(TICKS)
            return
        except Error:
            connection.close()
        time.sleep(0.5)


def wait_until_done(patience: float) -> list[dict[str, Any]]:
    """Wait until no job is unfinished, at most so many seconds; return those that still are."""
    columns = ("pk", "task_path", "state", "attempt", "max_attempts", "worker_id", "run_after")
    until = time.monotonic() + patience
    while True:
        try:
            unfinished = list(Job.objects.unfinished().values_list(*columns))
            if not unfinished or time.monotonic() > until:
                return [dict(zip(columns, row, strict=True)) for row in unfinished]
        except Error:
            # The server may still be recovering.
            connection.close()
        time.sleep(0.5)
