"""What reaches a job while it runs, and what it shows meanwhile: cancelling, progress, retries."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection

from django_jobs.models import Job, Queue
from django_jobs.states import AttemptOutcome, JobState
from tests import jobs
from tests.processes import wait_until

from .conftest import PATIENT, Start
from .ledger import Ledger
from .observe import (
    PATIENCE,
    keep_busy_and_claim_ahead,
    outcomes_of,
    row,
    state_of,
    states_of,
    wait_for_state,
    wait_until_finished,
    worker_of,
)


@pytest.fixture
def start(start: Start) -> Start:
    """Leases are not what these tests are about."""
    return partial(start, *PATIENT)


def cancel(*cancelled: Any) -> int:
    return Job.objects.filter(pk__in=[job.id for job in cancelled]).cancel()


class TestCancel:
    @pytest.mark.parametrize("task", [jobs.hold, jobs.hold_async])
    def test_a_running_job_that_is_cancelled_stops(
        self, start: Start, ledger: Ledger, task: Any, record_property: Callable[[str, object], None]
    ) -> None:
        command = start()
        job, other = task.enqueue(), task.enqueue()
        wait_until(lambda: ledger.count("begin") == 2)
        asked = time.monotonic()

        assert cancel(job) == 1

        wait_for_state(job, JobState.CANCELLED)
        record_property("cancel_s", time.monotonic() - asked)
        assert outcomes_of(job) == [AttemptOutcome.CANCELLED]
        assert state_of(other) == JobState.RUNNING
        ledger.open_gate()
        wait_for_state(other, JobState.SUCCEEDED)
        assert ledger.count("end", job) == 0
        assert ledger.count("end", other) == 1
        assert command.returncode is None

    def test_a_job_that_does_not_listen_ends_cancelled_all_the_same(self, start: Start, ledger: Ledger) -> None:
        start()
        job = jobs.hold_stubbornly.enqueue()
        wait_until(lambda: ledger.count("begin") == 1)

        cancel(job)

        wait_until(lambda: ledger.count("asked") == 1, message="the request to reach the job")
        assert state_of(job) == JobState.RUNNING
        ledger.open_gate()
        wait_for_state(job, JobState.CANCELLED)
        assert (ledger.count("end"), ledger.count("asked")) == (1, 1)
        assert outcomes_of(job) == [AttemptOutcome.CANCELLED]

    def test_jobs_claimed_ahead_that_are_cancelled_never_begin(self, start: Start, ledger: Ledger) -> None:
        start()
        busy, waiting = keep_busy_and_claim_ahead()

        cancel(*waiting)

        wait_until_finished(waiting)
        assert states_of(waiting) == {JobState.CANCELLED}
        ledger.open_gate()
        wait_until_finished(busy)
        assert states_of(busy) == {JobState.SUCCEEDED}
        assert ledger.count("ran") == 0

    @pytest.mark.parametrize("task", [jobs.pause_briefly, jobs.pause_briefly_async])
    def test_jobs_that_end_while_they_are_cancelled_end_once(self, start: Start, ledger: Ledger, task: Any) -> None:
        command = start("--concurrency=4", "--async-concurrency=4")
        worker = worker_of(command)
        many = task.enqueue_many([((0.02,), {})] * 120)

        # At any moment of its life: waiting, claimed, running, ended.
        for job in many[::2]:
            cancel(job)

        wait_until_finished(many)
        assert {state_of(job) for job in many[1::2]} == {JobState.SUCCEEDED}
        for job in many[::2]:
            ran, ended = ledger.count("begin", job), ledger.count("end", job)
            assert ended <= ran <= 1
            if state_of(job) == JobState.SUCCEEDED:
                assert (ended, row(job).cancel_requested_at) == (1, None)
            else:
                assert state_of(job) == JobState.CANCELLED
        assert worker_of(command) == worker


class TestTimeout:
    @pytest.mark.parametrize("task", [jobs.hold, jobs.hold_async])
    def test_a_job_that_takes_too_long_is_stopped_and_fails(self, start: Start, ledger: Ledger, task: Any) -> None:
        start()
        job, other = task.using(timeout=0.5, max_attempts=1).enqueue(), task.using(timeout=600).enqueue()

        wait_for_state(job, JobState.FAILED)

        assert outcomes_of(job) == [AttemptOutcome.TIMED_OUT]
        [error] = task.get_result(job.id).errors
        assert error.exception_class_path == "django_jobs.exceptions.JobTimeout"
        assert "took longer than its timeout of 0.5 s" in error.traceback
        wait_until(lambda: ledger.count("begin", other) == 1)
        ledger.open_gate()
        wait_for_state(other, JobState.SUCCEEDED)
        assert (ledger.count("end", job), ledger.count("end", other)) == (0, 1)

    def test_a_job_that_does_not_listen_goes_on_and_has_timed_out_all_the_same(
        self, start: Start, ledger: Ledger
    ) -> None:
        start()
        job = jobs.hold_stubbornly.using(timeout=0.2, max_attempts=1).enqueue()
        wait_until(lambda: ledger.count("asked") == 1, timeout=PATIENCE, message="the end of its time to reach the job")

        going_on = state_of(job)
        ledger.open_gate()

        wait_for_state(job, JobState.FAILED)
        assert going_on == JobState.RUNNING
        assert outcomes_of(job) == [AttemptOutcome.TIMED_OUT]
        assert (ledger.count("end"), ledger.count("asked")) == (1, 1)


class TestProgress:
    def assert_shown(self, start: Start, ledger: Ledger, task: Any) -> None:
        start()
        job = task.enqueue()
        wait_until(lambda: ledger.count("begin") == 1)

        progress = wait_until(lambda: row(job).progress, message="the progress of a running job")

        assert progress == {"done": 3, "total": 10, "message": "chunk 3"}
        assert state_of(job) == JobState.RUNNING
        assert not Group.objects.exists()
        ledger.open_gate()
        wait_for_state(job, JobState.SUCCEEDED)

    def test_progress_is_seen_while_the_job_writes_in_its_own_transaction(self, start: Start, ledger: Ledger) -> None:
        if not connection.features.has_select_for_update:
            pytest.skip("this database has one writer at a time: nobody writes while the job does")
        self.assert_shown(start, ledger, jobs.import_in_a_transaction)
        assert Group.objects.count() == 1

    def test_progress_is_seen_while_the_job_runs(self, start: Start, ledger: Ledger) -> None:
        self.assert_shown(start, ledger, jobs.import_in_steps)


class TestRetry:
    def test_a_failing_job_is_tried_so_often_and_with_these_delays(self, start: Start, ledger: Ledger) -> None:
        command = start()

        job = jobs.fail.enqueue()

        wait_for_state(job, JobState.FAILED)
        begun = ledger.entries("begin", job)
        assert [entry.attempt for entry in begun] == [1, 2, 3]
        assert outcomes_of(job) == [AttemptOutcome.FAILED] * 3
        assert all(after.at - before.at >= 0.3 for before, after in pairwise(begun))
        # How much later they begin is up to the machine; this is what the worker has asked for.
        wait_until(lambda: command.output().count("failed, again in 0.3 s") == 2, message="two retries to be told")

    def test_a_job_of_a_task_that_nobody_declared_waits_and_the_worker_lives(self, start: Start) -> None:
        command = start()
        unknown = Job.objects.create(task_path="gone.tasks.forgotten", max_attempts=1)
        worker = worker_of(command)

        after = jobs.touch.enqueue()

        wait_for_state(unknown, JobState.SCHEDULED)
        wait_for_state(after, JobState.SUCCEEDED)
        assert "is not a declared task" in unknown.attempts.get(number=1).message
        assert worker_of(command) == worker
        assert Queue.objects.filter(name="default").exists()
