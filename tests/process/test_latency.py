"""How soon things happen: a job starts, is seen to be finished, becomes ready at its time, is served at all.

The bounds are promises for an idle machine, and the machine of a test run may be busy with something else. So each
measurement is repeated until the median of a round keeps the promise: a worker that is late by design is late in all
rounds, one that was kept off the processor is not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection

from django_jobs.models import Queue
from django_jobs.notifications import can_notify
from django_jobs.states import JobState
from tests import jobs

from .conftest import Start
from .ledger import Ledger
from .observe import state_of, wait_for_state, wait_until_finished

pytestmark = pytest.mark.slow

ROUNDS = 10
JOBS_PER_ROUND = 7


def median_of_best_round(measure: Callable[[], float], good_enough: float) -> float:
    """Return the first round's median, in seconds, that is at most ``good_enough``, else the best of all rounds."""
    medians: list[float] = []
    for _ in range(ROUNDS):
        medians.append(statistics.median(measure() for _ in range(JOBS_PER_ROUND)))
        if medians[-1] <= good_enough:
            break
    return min(medians)


def seconds_to_start(ledger: Ledger) -> float:
    """Enqueue a job on an idle worker; return the time from just before its commit to its first line."""
    enqueued = time.monotonic()
    job = jobs.touch.enqueue()
    wait_for_state(job, JobState.SUCCEEDED)
    return ledger.entries("ran", job)[0].at - enqueued


def test_an_idle_worker_starts_a_job_within_50_ms_of_its_commit(
    start: Start, ledger: Ledger, record_property: Callable[[str, object], None]
) -> None:
    if not can_notify(connection):
        pytest.skip("the database has no notifications; polling is another test")
    # It would take far longer if it had to look by itself.
    start("--poll-interval=10")

    seconds = median_of_best_round(lambda: seconds_to_start(ledger), 0.05)

    record_property("pickup_ms", seconds * 1000)
    assert seconds <= 0.05


def test_a_worker_without_notifications_starts_a_job_within_the_poll_interval(
    start: Start, ledger: Ledger, record_property: Callable[[str, object], None]
) -> None:
    start("--no-notify", "--poll-interval=0.2")

    seconds = median_of_best_round(lambda: seconds_to_start(ledger), 0.2)

    record_property("poll_pickup_ms", seconds * 1000)
    # The interval is spread by a tenth, so that workers do not look all at once; and the job takes a moment to start.
    assert seconds <= 0.2 * 1.1 + 0.05


def test_a_job_is_seen_to_be_finished_within_50_ms_of_its_return(
    start: Start, ledger: Ledger, record_property: Callable[[str, object], None]
) -> None:
    start("--poll-interval=10" if can_notify(connection) else "--poll-interval=0.2")

    def seconds_to_be_seen() -> float:
        job = jobs.touch.enqueue()
        while state_of(job) != JobState.SUCCEEDED:
            # Without a pause the test would keep the worker off the processor that it waits for.
            time.sleep(0.002)
        return time.monotonic() - ledger.entries("ran", job)[0].at

    seconds = median_of_best_round(seconds_to_be_seen, 0.05)

    record_property("seen_finished_ms", seconds * 1000)
    assert seconds <= 0.05


def test_a_scheduled_job_is_ready_within_100_ms_of_its_time(
    start: Start, ledger: Ledger, record_property: Callable[[str, object], None]
) -> None:
    start("--poll-interval=2" if can_notify(connection) else "--poll-interval=0.05")

    def seconds_late() -> float:
        delay = 0.3
        enqueued = time.monotonic()
        job = jobs.touch.using(run_after=timedelta(seconds=delay)).enqueue()
        wait_for_state(job, JobState.SUCCEEDED)
        return ledger.entries("ran", job)[0].at - enqueued - delay

    seconds = median_of_best_round(seconds_late, 0.1)

    record_property("staging_ms", seconds * 1000)
    assert 0 <= seconds <= 0.1


def test_a_scheduled_job_never_runs_before_its_time(start: Start, ledger: Ledger) -> None:
    start()
    enqueued = time.monotonic()

    later = [jobs.touch.using(run_after=timedelta(seconds=n / 10)).enqueue() for n in range(10)]

    wait_until_finished(later)
    for n, job in enumerate(later):
        assert ledger.entries("ran", job)[0].at >= enqueued + n / 10


def test_a_job_of_a_queue_that_nobody_declared_is_served_within_seconds(
    start: Start, ledger: Ledger, record_property: Callable[[str, object], None]
) -> None:
    start()
    names = iter(["nobody knows", "nor this one", "and not this one"])

    def seconds_to_be_served() -> float:
        enqueued = time.monotonic()
        job = jobs.touch.using(queue_name=next(names)).enqueue()
        wait_for_state(job, JobState.SUCCEEDED)
        return ledger.entries("ran", job)[0].at - enqueued

    seconds = [seconds_to_be_served()]
    while len(seconds) < 3 and min(seconds) > 5:
        seconds.append(seconds_to_be_served())

    record_property("undeclared_queue_s", min(seconds))
    assert min(seconds) <= 5
    assert Queue.objects.filter(name="nobody knows").exists()
