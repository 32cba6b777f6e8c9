"""Processes that stand still longer than their lease and then go on: what they write late changes nothing."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connection
from django.db.models.functions import Now

from django_jobs.models import Attempt, Job, Worker
from django_jobs.models.database import exclusive, from_now
from django_jobs.states import AttemptOutcome, JobState, WorkerState
from tests import jobs
from tests.processes import Command, wait_until

from .conftest import Start
from .ledger import Ledger
from .observe import outcomes_of, row, state_of, wait_for_another_worker, wait_for_state, wait_until_finished, worker_of


def freeze(command: Command) -> None:
    """Stop the supervisor and its workers where they stand, outside of any transaction.

    Inside one they would hold its locks, and with SQLite the whole database, for as long as they stand still.
    """
    while True:
        os.killpg(command.pid, signal.SIGSTOP)
        if not _is_transaction_open():
            return
        os.killpg(command.pid, signal.SIGCONT)


def _is_transaction_open() -> bool:
    if connection.features.has_select_for_update:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND backend_type = 'client backend' AND state <> 'idle'"
            )
            return cursor.fetchone() is not None
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout=200")
    try:
        with exclusive():
            return False
    except DatabaseError:
        return True
    finally:
        connection.close()


def thaw(command: Command) -> None:
    os.killpg(command.pid, signal.SIGCONT)


def outlast_the_leases() -> None:
    """Wait until every lease of now has ended, by the database's clock."""
    last = Worker.objects.order_by("-expires_at").values_list("expires_at", flat=True).first()
    wait_until(lambda: Worker.objects.annotate(now=Now()).values_list("now", flat=True)[0] > last)


def test_a_frozen_host_that_goes_on_changes_nothing_about_jobs_that_others_took(start: Start, ledger: Ledger) -> None:
    frozen = start()
    held = [jobs.hold.enqueue(), jobs.hold.enqueue()]
    wait_until(lambda: ledger.count("begin") == 2)
    stale = worker_of(frozen)
    freeze(frozen)
    other = start()
    wait_until(lambda: ledger.count("begin") == 4, message="the other host to take the jobs")

    # The functions of both attempts return now, and both workers want to write what became of them.
    ledger.open_gate()
    thaw(frozen)

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
    freeze(frozen)
    start()
    ledger.open_gate()
    wait_for_state(job, JobState.SUCCEEDED)
    before = row(job)

    thaw(frozen)

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
    freeze(command)
    outlast_the_leases()

    thaw(command)

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
    freeze(first)
    wait_until(lambda: leading.filter(pid=second.pid).exists(), message="another leader")

    thaw(first)

    running = Worker.objects.filter(pid=first.pid, expires_at__gt=from_now(timedelta(0)))
    wait_until(lambda: set(running.values_list("state", flat=True)) == {WorkerState.RUNNING})
    due = [jobs.touch.using(run_after=timedelta(seconds=n / 20)).enqueue() for n in range(10)]
    wait_until_finished(due)
    assert set(ledger.times_run().values()) == {1}
    assert [leader.pid for leader in leading] == [second.pid]


def test_jobs_that_crash_in_the_middle_of_many_end_once_each(start: Start, ledger: Ledger) -> None:
    frozen = start()
    many = jobs.pause_briefly.enqueue_many([((0.02,), {})] * 100)
    wait_until(lambda: ledger.count("end") > 5)
    freeze(frozen)
    start()
    wait_until(lambda: Attempt.objects.filter(outcome=AttemptOutcome.CRASHED).exists(), message="a rescue")

    thaw(frozen)

    wait_until_finished(many)
    assert Job.objects.filter(state=JobState.SUCCEEDED).count() == 100
    # Only what stood still in the middle of an attempt was run again, and its history says so.
    crashed: Any = Attempt.objects.filter(outcome=AttemptOutcome.CRASHED).values_list("job_id", flat=True)
    ran_twice = {job_id for job_id, times in ledger.times_run().items() if times > 1}
    assert ran_twice <= set(crashed)
    assert len(set(crashed)) == len(crashed)
