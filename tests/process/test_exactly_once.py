"""Many workers and many jobs: each job runs once, and no worker runs more than it may."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from django.db import connection

from django_jobs.models import Attempt, Job
from django_jobs.states import AttemptOutcome, JobState
from tests import jobs
from tests.processes import wait_until

from .conftest import PATIENT, Start
from .ledger import Ledger
from .observe import keep_busy_and_claim_ahead, wait_until_finished


@pytest.fixture
def start(start: Start) -> Start:
    """Leases are not what these tests are about."""
    return partial(start, *PATIENT)


@pytest.fixture
def job_ids(transactional_db: None) -> Iterator[None]:
    """Make a table into which jobs write their ids. Without a constraint: a second run must be seen, not refused."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE job_ids (job_id bigint NOT NULL, pid integer NOT NULL)")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE job_ids")


@pytest.mark.usefixtures("job_ids")
@pytest.mark.slow
def test_eight_workers_run_each_of_two_thousand_jobs_once(start: Start) -> None:
    # Long leases: on a machine with few cores eight busy workers may keep a supervisor waiting.
    for _ in range(2):
        start("--processes=4", "--concurrency=1", "--heartbeat-interval=10", "--heartbeat-timeout=30", workers=4)

    jobs.write_id.enqueue_many([((number,), {}) for number in range(2000)])

    succeeded = Job.objects.filter(state=JobState.SUCCEEDED)
    wait_until(lambda: succeeded.count() == 2000, timeout=90, message="2,000 jobs")
    with connection.cursor() as cursor:
        cursor.execute("SELECT job_id, pid FROM job_ids")
        written = cursor.fetchall()
    assert sorted(job_id for job_id, _ in written) == sorted(Job.objects.values_list("pk", flat=True))
    assert len({pid for _, pid in written}) > 1
    # A worker that waits long for the database gives back what it has claimed ahead; nothing else happens to a job.
    assert set(Attempt.objects.values_list("outcome", flat=True)) <= {AttemptOutcome.INTERRUPTED}


def test_a_worker_runs_no_more_slow_jobs_at_once_than_its_concurrency(start: Start, ledger: Ledger) -> None:
    start("--concurrency=2")

    slow = jobs.pause_briefly.enqueue_many([((0.1,), {})] * 12)

    wait_until_finished(slow)
    assert ledger.most_at_once() == 2
    assert set(ledger.times_run().values()) == {1}


def test_a_worker_claims_slow_jobs_only_when_a_thread_is_free(start: Start, ledger: Ledger) -> None:
    start("--concurrency=2")
    slow = jobs.pause_briefly.enqueue_many([((0.1,), {})] * 12)

    most_running = 0
    while ledger.count("end") < 12:
        most_running = max(most_running, Job.objects.running().count())

    wait_until_finished(slow)
    # It may not have been looked at while they ran.
    assert most_running <= 2
    assert ledger.most_at_once() == 2


def test_a_worker_claims_jobs_of_milliseconds_ahead(start: Start, ledger: Ledger) -> None:
    start("--concurrency=2")

    # It waits until some are claimed.
    busy, _ = keep_busy_and_claim_ahead()

    # Others keep both threads busy, and so none of them runs.
    wait_until(lambda: ledger.count("begin") == len(busy) == 2, message="both threads busy")
    assert ledger.count("ran") == 0


def test_a_worker_that_is_told_not_to_claims_nothing_ahead(start: Start) -> None:
    start("--concurrency=2", "--claim-ahead=0")
    quick = jobs.write_nothing.enqueue_many([((), {})] * 200)

    most_running = 0
    while Job.objects.unfinished().exists():
        most_running = max(most_running, Job.objects.running().count())

    wait_until_finished(quick)
    assert most_running <= 2


def test_jobs_claimed_ahead_do_not_wait_behind_slow_ones(start: Start, ledger: Ledger) -> None:
    start("--concurrency=2")
    quick = jobs.write_nothing.enqueue_many([((), {})] * 500)
    wait_until_finished(quick)
    slow = jobs.hold.enqueue_many([((), {})] * 2)
    behind = jobs.touch.enqueue_many([((), {})] * 20)
    wait_until(lambda: ledger.count("begin") == 2, message="both threads busy")

    start("--concurrency=2")

    wait_until_finished(behind)
    assert ledger.count("end") == 0
    assert set(Job.objects.filter(pk__in=[job.id for job in behind]).values_list("attempt", flat=True)) <= {1, 2}
    ledger.open_gate()
    wait_until_finished(slow)
