"""A row with a time that Python cannot hold, written past us, spoils nothing: its job runs, and all others too."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from django_jobs.models import Attempt, Job, Queue
from django_jobs.models.rescue import rescue_lost
from django_jobs.states import AttemptOutcome, JobState
from django_jobs.worker.leader import Leader
from tests import jobs, tasks
from tests.exchanges import Hand, enqueue, states
from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.process.observe import states_of, wait_until_finished, worker_of
from tests.rows import claim, end_lease, outcome, start_worker, write

pytestmark = pytest.mark.django_db

IS_POSTGRESQL = connection.features.has_select_for_update
UNREADABLE = (
    ["infinity", "-infinity", "0044-03-15 12:00 BC", "20000-01-01"]
    if IS_POSTGRESQL
    else ["infinity", "2026-13-45 99:00:00", "", 7]
)
TIMES = ["enqueued_at", "run_after", "started_at"]


def store(pk: int, column: str, moment: Any) -> None:
    """Write a time into a row, past Django."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE django_jobs_job SET {column} = %s WHERE id = %s", [moment, pk])


@pytest.fixture
def before_and_after() -> list[int]:
    Queue.objects.declare("default")
    start_worker()
    return enqueue(3)


@pytest.mark.parametrize("queues", [["default"], ["default", "mail"]], ids=str)
@pytest.mark.parametrize("moment", UNREADABLE, ids=str)
@pytest.mark.parametrize("column", TIMES)
def test_a_time_that_cannot_be_read_keeps_no_job_from_being_claimed(
    before_and_after: list[int], column: str, moment: Any, queues: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    before, odd, after = before_and_after
    store(odd, column, moment)

    claimed = claim(queues=queues)

    assert [job.id for job in claimed] == [before, odd, after]
    assert getattr(claimed[1], column) is None or column == "started_at"
    assert all(job.enqueued_at is not None for job in (claimed[0], claimed[2]))
    # Django itself takes most texts that are no times for none.
    assert not IS_POSTGRESQL or "has a time that cannot be read" in caplog.text


@pytest.mark.parametrize("column", TIMES)
def test_a_job_with_such_a_time_runs_and_ends(before_and_after: list[int], column: str) -> None:
    store(before_and_after[1], column, UNREADABLE[0])

    with Hand(concurrency=3) as hand:
        hand.turn()
        for _ in before_and_after:
            job = hand.begin()
            hand.exchange.done(hand.threads._runner.execute(job, hand.threads._windows[0]))
        hand.settle()

    assert states(before_and_after) == [JobState.SUCCEEDED] * 3


@pytest.mark.parametrize("moment", UNREADABLE, ids=str)
def test_a_job_whose_start_cannot_be_read_is_rescued_with_the_others(before_and_after: list[int], moment: Any) -> None:
    claim()
    store(before_and_after[1], "last_attempted_at", moment)
    end_lease()

    assert rescue_lost() == 3

    assert states(before_and_after) == [JobState.READY] * 3
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {AttemptOutcome.CRASHED}


@pytest.mark.django_db(transaction=True)
def test_a_job_whose_start_cannot_be_read_is_given_back_by_a_worker_that_does_not_know_it(
    before_and_after: list[int],
) -> None:
    with Hand(concurrency=3) as hand:
        hand.exchange.is_claiming = False
        claim()
        store(before_and_after[1], "last_attempted_at", UNREADABLE[0])

        hand.exchange.recover()
        hand.turn()

    assert states(before_and_after) == [JobState.READY] * 3


@pytest.mark.parametrize("moment", UNREADABLE, ids=str)
def test_a_request_to_cancel_at_such_a_time_cancels_its_job_and_no_other(
    before_and_after: list[int], moment: Any
) -> None:
    claimed = claim()
    store(before_and_after[1], "cancel_requested_at", moment)

    written = write(*(outcome(job, "fail") for job in claimed))

    assert written.late == []
    assert states(before_and_after) == [JobState.FAILED, JobState.CANCELLED, JobState.FAILED]


def leader() -> Leader:
    return Leader("w1", [], lease=30, poll_interval=1.0)


def test_a_job_that_is_due_never_keeps_the_leader_from_nothing() -> None:
    start_worker()
    odd, due = enqueue(2, run_after=timedelta(hours=1))
    store(odd, "run_after", "infinity")
    Job.objects.filter(pk=due).update(run_after="2020-01-01T00:00Z")

    pause = leader().run_once()

    assert states([odd, due]) == [JobState.SCHEDULED, JobState.READY]
    assert 0 < pause <= 1


@pytest.mark.skipif(not IS_POSTGRESQL, reason="Times are texts here, and none lies before all others.")
@pytest.mark.parametrize("moment", ["-infinity", "0044-03-15 12:00 BC"])
def test_a_job_that_was_due_before_christ_is_made_ready(moment: str) -> None:
    start_worker()
    [odd] = enqueue(1, run_after=timedelta(hours=1))
    store(odd, "run_after", moment)

    leader().run_once()

    assert states([odd]) == [JobState.READY]


@pytest.mark.parametrize("column", ["enqueued_at", *(pytest.param(one, marks=pytest.mark.long) for one in TIMES[1:])])
def test_a_worker_goes_on_with_such_rows(start: Start, ledger: Ledger, column: str) -> None:
    with_odd_ones = jobs.touch.enqueue_many([((), {})] * 8)
    for job, moment in zip(with_odd_ones, UNREADABLE, strict=False):
        store(int(job.id), column, moment)

    command = start()

    worker = worker_of(command)
    wait_until_finished(with_odd_ones)
    assert states_of(with_odd_ones) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert worker_of(command) == worker
    assert "loop failed" not in command.output()


def test_only_the_job_that_has_one_is_without_its_times(before_and_after: list[int]) -> None:
    store(before_and_after[0], "enqueued_at", UNREADABLE[0])
    pk = int(tasks.noop.using(priority=5).enqueue().id)

    claimed = {job.id: job for job in claim()}

    assert claimed[before_and_after[0]].enqueued_at is None
    assert claimed[pk].enqueued_at is not None
