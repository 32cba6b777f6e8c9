"""The last jobs of schedules: for lists of many schedules, and for the page of one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery

from .job import Job
from .schedule import Schedule

# What a list shows; arguments may be a megabyte each.
_LISTED = ("schedule_id", "state", "scheduled_for", "enqueued_at", "started_at", "last_attempted_at", "finished_at")


def last_jobs(schedules: Sequence[Schedule], count: int) -> dict[int, list[Any]]:
    """Return the newest ``count`` jobs of each schedule by its id, newest first.

    Two queries for any number of schedules. Each job is found by its place in the index of its schedule's moments: a
    window function would read all jobs of every schedule, and there may be a million. Jobs that a person had run have
    no moment; they are at one end of that index, the newest first as good as always.
    """
    found: dict[int, list[Any]] = {schedule.pk: [] for schedule in schedules}
    jobs = Job.objects.filter(schedule=OuterRef("pk"))
    places = {f"fired_{place}": _id_at(place, jobs.filter(scheduled_for__isnull=False)) for place in range(count)}
    places |= {f"asked_{place}": _id_at(place, jobs.filter(scheduled_for__isnull=True)) for place in range(count)}
    rows = Schedule.objects.filter(pk__in=found).annotate(**places).values_list(*places)
    ids = [pk for row in rows for pk in row if pk is not None]
    for job in sorted(Job.objects.filter(pk__in=ids).only(*_LISTED), key=moment_of, reverse=True):
        found[job.schedule_id].append(job)  # type: ignore[index]
    return {pk: newest[:count] for pk, newest in found.items()}


def moment_of(job: Job) -> datetime:
    """Return what the job was scheduled for, or when a person asked for it."""
    return job.scheduled_for or job.enqueued_at


def _id_at(place: int, jobs: QuerySet[Job]) -> Subquery:
    # Ordered by what the index has, also where that is always empty: no other index serves this order.
    return Subquery(jobs.order_by("-scheduled_for").values("pk")[place : place + 1])
