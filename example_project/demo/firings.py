"""What the schedules of the shop do while the demo runs, in lines for the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from django.db.models import Max

from django_jobs.models import Job
from django_jobs.states import FINISHED

# One fires each minute; the machine may be busy.
PATIENCE = 120.0
SECONDS_BETWEEN_LOOKS = 0.5


class Firings:
    """Follows the jobs that schedules enqueue after it is made; each is told once, when it has ended."""

    def __init__(self) -> None:
        self._last = Job.objects.aggregate(last=Max("pk"))["last"] or 0
        self._told: set[int] = set()

    def new(self) -> Iterator[Any]:
        """Yield the jobs of schedules that have ended and were not told yet."""
        ended = Job.objects.filter(pk__gt=self._last, schedule__isnull=False, state__in=FINISHED)
        for job in ended.exclude(pk__in=self._told).select_related("schedule").order_by("pk"):
            self._told.add(job.pk)
            yield job

    def first(self, check: Callable[[], None]) -> Any:
        """Return the first of them. ``check`` is called meanwhile and may raise; TimeoutError after PATIENCE seconds."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            check()
            for job in self.new():
                return job
            time.sleep(SECONDS_BETWEEN_LOOKS)
        raise TimeoutError(f"No schedule has fired within {PATIENCE:.0f} s.")


def line_of(job: Any) -> str:
    """Return what became of a job of a schedule, in a line."""
    when = f"for {job.scheduled_for:%H:%M:%S} UTC" if job.scheduled_for else "by hand"
    return f"  schedule “{job.schedule}” fired {when}: job {job.pk} {job.state}"
