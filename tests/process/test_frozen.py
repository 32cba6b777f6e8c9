"""Processes that stand still longer than their lease and then go on: what they write late changes nothing."""

from __future__ import annotations

from datetime import timedelta

import psutil
import pytest
from django.db.models import Q
from django.db.models.functions import Now

from django_jobs.models import Attempt, Job, Worker
from django_jobs.models.database import from_now
from django_jobs.states import AttemptOutcome, JobState, WorkerState
from tests import jobs
from tests.processes import Command, wait_until

from .conftest import Start
from .freezing import freeze, freeze_all, thaw, thaw_all
from .ledger import Ledger
from .observe import outcomes_of, row, state_of, wait_for_another_worker, wait_for_state, wait_until_finished, worker_of

pytestmark = pytest.mark.slow


def outlast_the_leases(command: Command) -> None:
    """Wait until the leases of a frozen supervisor and its worker have ended, by the database's clock."""
    supervisor = Worker.objects.filter(pid=command.pid).values("worker_id")
    theirs = Worker.objects.filter(Q(pid=command.pid) | Q(supervisor__in=supervisor))
    wait_until(lambda: not theirs.leased().exists(), message="the end of the leases")


def test_a_frozen_host_that_goes_on_changes_nothing_about_jobs_that_others_took(start: Start, ledger: Ledger) -> None:
    frozen = start()
    held = [jobs.hold.enqueue(), jobs.hold.enqueue()]
    wait_until(lambda: ledger.count("begin") == 2)
    stale = worker_of(frozen)
    freeze_all(frozen)
    other = start()
    wait_until(lambda: ledger.count("begin") == 4, message="the other host to take the jobs")

    # The functions of both attempts return now, and both workers want to write what became of them.
    ledger.open_gate()
    thaw_all(frozen)

    wait_until_finished(held)
    fresh = wait_for_another_worker(frozen, stale)
    later = jobs.touch.enqueue()
    wait_for_state(later, JobState.SUCCEEDED)
    stale.refresh_from_db()
    assert stale.state == WorkerState.LOST
    for job in held:
        assert (state_of(job), row(job).attempt, row(job).worker_id) == ("succeeded", 2, worker_of(other).worker_id)
        assert outcomes_of(job) == [AttemptOutcome.CRASHED]
    assert fresh.pid != stale.pid


def test_a_late_failure_changes_nothing_about_a_job_that_has_succeeded_elsewhere(start: Start, ledger: Ledger) -> None:
    frozen = start()
    job = jobs.hold_then_fail_first.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    stale = worker_of(frozen)
    freeze_all(frozen)
    start()
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    before = row(job)

    thaw_all(frozen)

    wait_for_another_worker(frozen, stale)
    after = row(job)
    fields = [field.attname for field in Job._meta.concrete_fields]
    assert {name: getattr(after, name) for name in fields} == {name: getattr(before, name) for name in fields}
    assert outcomes_of(job) == [AttemptOutcome.CRASHED]


def test_a_frozen_host_without_others_goes_on_where_it_was(start: Start, ledger: Ledger) -> None:
    command = start()
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    worker = worker_of(command)
    freeze_all(command)
    outlast_the_leases(command)

    thaw_all(command)

    renewed = Worker.objects.filter(pk=worker.pk, state=WorkerState.RUNNING, expires_at__gt=Now())
    wait_until(renewed.exists, message="the lease to be renewed")
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    assert not Attempt.objects.exists()
    assert ledger.count("begin") == ledger.count("end") == 1
    assert worker_of(command) == worker


def test_a_frozen_leader_hands_over_and_does_not_lead_on(start: Start, ledger: Ledger) -> None:
    first = start()
    leading = Worker.objects.filter(is_leader=True)
    wait_until(lambda: leading.filter(pid=first.pid).exists())
    second = start()
    freeze_all(first)
    wait_until(lambda: leading.filter(pid=second.pid).exists(), message="another leader")

    thaw_all(first)

    running = Worker.objects.filter(pid=first.pid, expires_at__gt=from_now(timedelta(0)))
    wait_until(lambda: set(running.values_list("state", flat=True)) == {WorkerState.RUNNING})
    due = [jobs.touch.using(run_after=timedelta(seconds=n / 20)).enqueue() for n in range(10)]
    wait_until_finished(due)
    assert set(ledger.times_run().values()) == {1}
    assert [leader.pid for leader in leading] == [second.pid]


def test_a_host_that_is_frozen_again_and_again_loses_and_doubles_no_job(start: Start, ledger: Ledger) -> None:
    frozen = start()
    start()
    many = jobs.pause_briefly.enqueue_many([((0.02,), {})] * 300)

    for count in (20, 150):
        wait_until(lambda count=count: ledger.count("end") > count)
        freeze_all(frozen)
        outlast_the_leases(frozen)
        thaw_all(frozen)

    wait_until_finished(many)
    assert Job.objects.filter(state=JobState.SUCCEEDED).count() == 300
    # What ran twice was in the middle of an attempt when its host stood still, and its history says so.
    crashed = list(Attempt.objects.filter(outcome=AttemptOutcome.CRASHED).values_list("job_id", flat=True))
    assert {job_id for job_id, times in ledger.times_run().items() if times > 1} <= set(crashed)
    assert ledger.times_run().keys() == {int(job.id) for job in many}


def test_a_worker_whose_supervisor_is_frozen_ends_when_others_have_its_jobs(start: Start, ledger: Ledger) -> None:
    command = start()
    job = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1)
    worker = worker_of(command)
    start()

    freeze(command.pid)

    wait_until(lambda: ledger.count("begin") == 2, message="the other host to take the job")
    # Its parent cannot take note of its end yet.
    wait_until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_ZOMBIE, message="the end of the worker")
    thaw(command.pid)
    wait_for_another_worker(command, worker)
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    assert [entry.attempt for entry in ledger.entries("end")] == [2]
    assert outcomes_of(job) == [AttemptOutcome.CRASHED]
