"""Two releases at once: a migration while the older code runs, and newer code where the migration has not run yet."""

from __future__ import annotations

import os
import signal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from django_jobs.models import Attempt, Job, Queue
from django_jobs.states import AttemptOutcome, JobState
from tests import jobs
from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.process.observe import (
    PATIENCE,
    outcomes_of,
    row,
    state_of,
    states_of,
    wait_for_another_worker,
    wait_for_state,
    wait_until_finished,
    worker_of,
)
from tests.processes import wait_until, workers_of
from tests.rows import HOUR
from tests.visitor import JOBS, QUEUES, WORKERS, superuser

from .deploys import Deploy
from .producers import Producers, assert_each_ran_once, many_at_once, one_by_one, wait_for_more_jobs

pytestmark = pytest.mark.slow

# Leases are not what these stories are about, and a migration keeps a busy machine busier.
PATIENT = ("--heartbeat-interval=1", "--heartbeat-timeout=20")


def columns_of(table: str) -> set[str]:
    with connection.cursor() as cursor:
        return {column.name for column in connection.introspection.get_table_description(cursor, table)}


def test_a_migration_of_the_next_release_under_load_loses_and_doubles_no_job(
    deploy: Deploy, start: Start, ledger: Ledger
) -> None:
    old = start(*PATIENT)
    with Producers(one_by_one, many_at_once) as producers:
        wait_for_more_jobs()
        deploy.put("columns")

        deploy.migrate()

        assert {"weight", "note"} <= columns_of("django_jobs_job")
        wait_for_more_jobs()
        # The next release comes beside this one, as in a rolling restart, and both take jobs.
        new = start(*PATIENT, env=deploy.env)
        pids = {workers_of(command).get().pid for command in (old, new)}
        seen = len(ledger.entries())
        wait_until(lambda: pids <= {entry.pid for entry in ledger.entries()[seen:]}, timeout=PATIENCE)
        producers.wait_for_more()

    assert_each_ran_once(ledger, producers.enqueued)
    assert len(workers_of(old)) == len(workers_of(new)) == 1


def test_all_that_the_older_code_does_goes_on_after_the_migration(deploy: Deploy, start: Start, ledger: Ledger) -> None:
    command = start(*PATIENT)
    wait_until_finished([jobs.touch.enqueue()])
    deploy.put("columns")

    deploy.migrate()

    # A row of each table, and each verb.
    answered = jobs.tell_time.enqueue()
    failed = jobs.fail.using(max_attempts=2).enqueue()
    later = jobs.touch.using(queue_name="nobody knows").enqueue()
    wait_until_finished([answered, failed, later])
    held = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin", held) == 1, timeout=PATIENCE)
    killed = worker_of(command)
    os.kill(killed.pid, signal.SIGKILL)
    wait_for_another_worker(command, killed)
    wait_until(lambda: ledger.count("begin", held) == 2, timeout=PATIENCE)
    ledger.open_gate()
    wait_for_state(held, JobState.SUCCEEDED)

    assert isinstance(row(answered).result.value, float)
    assert outcomes_of(failed) == [AttemptOutcome.FAILED] * 2
    assert outcomes_of(held) == [AttemptOutcome.CRASHED]
    assert Queue.objects.filter(name="nobody knows").exists()
    assert Job.objects.filter(pk=failed.id).requeue() == 1
    assert Job.objects.filter(pk=jobs.touch.using(run_after=HOUR).enqueue().id).cancel() == 1
    browser = superuser()
    for page in (JOBS, f"{JOBS}{held.id}/change/", QUEUES, WORKERS):
        assert browser.get(page).status_code == 200, page
    wait_until_finished([failed])
    answer = StringIO()
    call_command("prunejobs", "--older-than", "0s", stdout=answer)
    assert "Deleted 6 jobs" in answer.getvalue()


def test_newer_code_does_not_start_without_its_columns_and_says_what_to_do(
    deploy: Deploy, start: Start, ledger: Ledger
) -> None:
    job = jobs.touch.enqueue()
    deploy.put("columns")

    new = start(*PATIENT, env=deploy.env, ready=False)

    assert new.wait() == 1
    # Not with what it would run into later.
    refusal = "CommandError: The database 'default' lacks migrations of django_jobs: 0002_more. Run: manage.py migrate"
    assert refusal in new.output()
    assert "Traceback" not in new.output()
    assert (state_of(job), row(job).attempt) == (JobState.READY, 0)


def test_newer_code_that_lacks_only_an_index_starts_with_a_warning(
    deploy: Deploy, start: Start, ledger: Ledger
) -> None:
    deploy.put("indexes")

    new = start(*PATIENT, env=deploy.env)

    wait_until_finished([jobs.touch.enqueue()])
    assert "WARNING" in new.output()
    assert "lacks migrations of django_jobs: 0002_index. Run: manage.py migrate" in new.output()


@pytest.mark.long
def test_a_worker_that_starts_again_with_newer_code_waits_for_the_migration(
    deploy: Deploy, start: Start, ledger: Ledger
) -> None:
    command = start(*PATIENT, "--processes=2", env=deploy.env, workers=2)
    deploy.put("columns")
    killed, other = workers_of(command)

    os.kill(killed.pid, signal.SIGKILL)

    wait_until(lambda: "0002_more" in command.output(), timeout=PATIENCE, message="the refusal")
    # The other one still has the older code in memory.
    before = jobs.touch.enqueue_many([((), {})] * 5)
    wait_until_finished(before)
    deploy.migrate()
    wait_for_another_worker(command, other)
    after = jobs.touch.enqueue_many([((), {})] * 5)
    wait_until_finished(after)
    assert states_of([*before, *after]) == {JobState.SUCCEEDED}
    assert {entry.pid for job in before for entry in ledger.entries("ran", job)} == {other.pid}
    assert not Attempt.objects.exists()
    assert command.returncode is None


def test_options_of_another_release_reach_a_worker_as_far_as_it_knows_them(monkeypatch: Any) -> None:
    from django_jobs.worker.options import WorkerOptions, resolve_options

    monkeypatch.setenv("DJANGO_JOBS_POLL_INTERVAL", "0.7")
    told = resolve_options({"CONCURRENCY": 3, "TAGS": ["gpu"], "POLL_INTERVAL": 5.0}, ["mail"]).as_json()
    del told["poll_interval"]

    options = WorkerOptions.from_json(told | {"memory_limit": 5})

    assert (options.concurrency, options.tags, options.queues) == (3, ("gpu",), ("mail",))
    assert options.poll_interval == 0.7
