"""What the jobs of this run are doing, in lines for the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from django.db.models import Count, Max, Min
from django.urls import resolve

from django_jobs.models import Attempt, Job
from django_jobs.states import ERROR_OUTCOMES, JobState

from ..shop.models import Upload
from ..shop.status import status_of

TIMEOUT = 300.0
SECONDS_BETWEEN_LINES = 1.0


class Progress:
    """Follows the jobs of the import: those that are enqueued after it is made, but for those of schedules."""

    def __init__(self) -> None:
        last = Job.objects.aggregate(last=Max("pk"))["last"] or 0
        self._jobs = Job.objects.filter(pk__gt=last, schedule=None)
        self._began = time.monotonic()

    def lines(self, page: str, check: Callable[[], None]) -> Iterator[str]:
        """Yield a line a second about the upload that ``page`` shows, until every job has ended.

        ``check`` is called each time and may raise. TimeoutError after TIMEOUT seconds.
        """
        upload = Upload.objects.get(pk=resolve(urlsplit(page).path).kwargs["pk"])
        while self._jobs.unfinished().exists():
            check()
            yield self._line(upload)
            if self._passed() > TIMEOUT:
                raise TimeoutError(f"The import is not done after {TIMEOUT:.0f} s.")
            time.sleep(SECONDS_BETWEEN_LINES)
        yield self._line(upload)

    def is_all_well(self) -> bool:
        """Say whether there are jobs, and each has succeeded."""
        return self._jobs.exists() and not self._jobs.exclude(state=JobState.SUCCEEDED).exists()

    def summary(self) -> str:
        """Return what ran, as a table with the times."""
        rows = self._jobs.values("task_path", "state").annotate(count=Count("pk")).order_by("task_path", "state")
        lines = ["", "What ran", *(f"  {row['task_path']:<48}{row['state']:<12}{row['count']:>7,}" for row in rows)]
        failed = Attempt.objects.filter(job__in=self._jobs, outcome__in=ERROR_OUTCOMES).count()
        times = self._jobs.aggregate(jobs=Count("pk"), first=Min("enqueued_at"), last=Max("finished_at"))
        if times["last"] is not None:
            seconds = max((times["last"] - times["first"]).total_seconds(), 0.001)
            lines.append(f"  {times['jobs']:,} jobs in {seconds:.1f} s, {times['jobs'] / seconds:,.0f} a second")
        lines.append(f"  {failed:,} attempts failed and were tried again" if failed else "  no attempt failed")
        lines += [f"  {problem}" for problem in self._problems()]
        lines.append("Every job succeeded." if self.is_all_well() else "NOT every job succeeded.")
        return "\n".join(lines)

    def _problems(self) -> Iterator[str]:
        for job in self._jobs.exclude(state=JobState.SUCCEEDED)[:10]:
            attempt = job.attempts.order_by("number").last()
            yield f"job {job.pk} {job.task_path}: {job.state}; {attempt.message if attempt else 'no attempt'}"

    def _line(self, upload: Upload) -> str:
        upload.refresh_from_db(fields=["imported_at"])
        status = status_of(upload)
        lines, receipts = status["lines"], status["receipts"]
        report = f"report: {status['report']['revenue']}" if status["report"] else "report: not yet"
        return (
            f"{self._passed():6.1f} s  lines {lines['done']:>5,} of {lines['total']:,}   "
            f"receipts {receipts['done']:>5,} of {receipts['total']:>5,}   {report}"
        )

    def _passed(self) -> float:
        return time.monotonic() - self._began
