"""Which jobs a person's search looks through: the newest, and older ones that an index finds.

Tasks, queues, workers and keys have no index of all jobs, because each would cost every claim. So a search reads the
jobs in the order of their ids and stops after MOST_SEARCHED of them, however few match. For people who look, not for workers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..states import JobState
from .claim import PLACE
from .job import Job
from .job_queryset import JobQuerySet
from .unique import holders

# More than most projects keep, and read in some tenths of a second.
MOST_SEARCHED = 100_000


def newest_left_out(before: int | None = None) -> int | None:
    """Return the id of the newest job that a search leaves out, or None if it leaves out none.

    With ``before`` the search looks through the newest jobs below that id, so that a next one can go further back.
    """
    jobs = Job.objects.order_by("-pk").values_list("pk", flat=True)
    if before is not None:
        jobs = jobs.filter(pk__lt=before)
    return jobs[MOST_SEARCHED : MOST_SEARCHED + 1].first()


def found_by_indexes(most: int, unique_key: str = "") -> Iterator[list[int]]:
    """Yield the ids of jobs of any age that are ready, blocked, scheduled, running, or finished last: up to ``most`` of each.

    And that of the job that has this unique key. Each query is in the order of its index, and so reads nothing else.
    """
    yield _ids(Job.objects.ready().order_by("queue_name", "-priority", PLACE), most)
    yield _ids(Job.objects.keyed(JobState.BLOCKED).order_by("concurrency_key", "-priority", "id"), most)
    yield _ids(Job.objects.filter(state=JobState.SCHEDULED).order_by("run_after"), most)
    yield _ids(Job.objects.running().order_by("worker_id"), most)
    yield _ids(Job.objects.finished().order_by("-finished_at"), most)
    if unique_key:
        yield _ids(holders(Job.objects.all(), [unique_key]), 1)


def _ids(jobs: JobQuerySet, most: int) -> list[int]:
    return list(jobs.values_list("pk", flat=True)[:most])
