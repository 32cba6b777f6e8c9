"""Atomic jobs whose workers are killed: what they write to the database happens exactly once."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
from django.db import connection

from django_jobs.models import Job
from django_jobs.states import JobState
from tests import jobs
from tests.process.conftest import Start
from tests.process.observe import PATIENCE, crashes_of, wait_for_state
from tests.processes import wait_until, workers_of

MOMENTS = ["in the function", "before the success", "before the commit", "after the commit"]


@pytest.fixture
def counter(transactional_db: None) -> Iterator[None]:
    """Make a table with one number, to which jobs add."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE counter (value integer NOT NULL)")
        cursor.execute("INSERT INTO counter VALUES (0)")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE counter")


def counted() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT value FROM counter")
        return int(cursor.fetchone()[0])


@pytest.mark.usefixtures("counter")
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_atomic_job_counts_once_whenever_its_worker_is_killed(start: Start, moment: str) -> None:
    start()

    job = jobs.count_once_and_kill_worker.enqueue(moment)

    wait_for_state(job, JobState.SUCCEEDED)
    # What was committed is not run again.
    assert crashes_of(job) == (0 if moment == "after the commit" else 1)
    assert counted() == 1


@pytest.mark.usefixtures("counter")
@pytest.mark.parametrize(
    "count",
    [pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(300)]), pytest.param(1000, marks=pytest.mark.long)],
)
def test_the_sum_of_many_atomic_jobs_is_exact_though_workers_are_killed_at_random(start: Start, count: int) -> None:
    chance = random.Random(count)
    command = start("--processes=2", workers=2)
    many = jobs.count_once.enqueue_many([((), {})] * count)
    succeeded = Job.objects.filter(state=JobState.SUCCEEDED)

    done = 0
    while done < count:
        more = done + chance.randint(1, 40)
        # Jobs that were beside several kills wait for tens of seconds, apart from each other.
        wait_until(lambda more=more: succeeded.count() >= min(more, count), timeout=3 * PATIENCE)
        for worker in workers_of(command)[: chance.randint(1, 2)]:
            # It may be one that was killed before, and that nobody has missed yet.
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        wait_until(workers_of(command).exists, timeout=PATIENCE)
        done = succeeded.count()

    assert len(many) == succeeded.count() == count
    assert counted() == count
