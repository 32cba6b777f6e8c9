"""Workers whose code does not have a job's task, or has it with other arguments: the job waits for those that do."""

from __future__ import annotations

import pytest

from django_jobs.models import Attempt, Job, Result
from django_jobs.states import AttemptOutcome, JobState
from tests import hostile_jobs, jobs
from tests.hostile_jobs import OLD_CODE
from tests.process.conftest import Start
from tests.process.ledger import Ledger
from tests.process.observe import outcomes_of, row, state_of, states_of, wait_for_state, wait_until_finished, worker_of
from tests.processes import wait_until

pytestmark = pytest.mark.slow

OLD = {OLD_CODE: "1"}


def test_an_old_worker_leaves_the_jobs_of_a_new_task_to_a_new_one(start: Start, ledger: Ledger) -> None:
    old = start(env=OLD)
    worker = worker_of(old)
    job = hostile_jobs.new_with_the_deploy.using(max_attempts=1).enqueue(41)
    # It tries again and again, and each try waits longer.
    wait_until(lambda: len(outcomes_of(job)) == 2, timeout=20)
    assert state_of(job) == JobState.SCHEDULED
    assert worker_of(old) == worker
    assert old.stop() == 0

    start()

    # The third wait is 8 s, give or take a quarter.
    wait_for_state(job, JobState.SUCCEEDED, timeout=20)
    assert Result.objects.get(job=job.id).value == 42
    assert set(outcomes_of(job)) == {AttemptOutcome.POSTPONED}
    first, second = (row for row in Attempt.objects.filter(job=job.id).order_by("number")[:2])
    assert "is not a declared task" in first.message
    assert (second.started_at - first.ended_at).total_seconds() >= 1.5
    assert f"Job {job.id} of tests.hostile_jobs.new_with_the_deploy" in old.output()
    assert "WARNING" in old.output()


def test_old_and_new_workers_side_by_side_run_every_job_of_a_new_task_once(start: Start, ledger: Ledger) -> None:
    old = start(env=OLD)
    worker = worker_of(old)
    many = hostile_jobs.new_with_the_deploy.using(max_attempts=1).enqueue_many(
        [((number,), {}) for number in range(20)]
    )
    ids = [job.id for job in many]
    wait_until(lambda: Attempt.objects.filter(job__in=ids, number=1).count() == 20, message="all to be postponed")
    start()

    others = jobs.touch.enqueue_many([((), {})] * 40)

    def have_ended_if_nobody_waits() -> bool:
        Job.objects.filter(pk__in=ids).stage()
        return not Job.objects.filter(pk__in=ids).unfinished().exists()

    wait_until(have_ended_if_nobody_waits, timeout=60)
    wait_until_finished(others)
    assert states_of([*many, *others]) == {JobState.SUCCEEDED}
    assert set(ledger.times_run().values()) == {1}
    assert len(ledger.times_run()) == 60
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {AttemptOutcome.POSTPONED}
    assert worker_of(old) == worker


@pytest.mark.parametrize("is_old", [True, False])
def test_arguments_of_another_version_wait_for_it(start: Start, ledger: Ledger, is_old: bool) -> None:
    """Both ways: the job is of the new version and the worker of the old one, and the other way round."""
    arguments = ["Ada", "en"] if is_old else ["Ada"]
    job = hostile_jobs.greet.using(max_attempts=1).enqueue(*arguments)

    wrong = start(env=OLD if is_old else {})

    wait_until(lambda: outcomes_of(job) == [AttemptOutcome.POSTPONED])
    assert ledger.count("ran") == 0
    attempt = Attempt.objects.get(number=1)
    assert attempt.exception_class == "builtins.TypeError"
    assert "argument" in attempt.message
    assert row(job).max_attempts - row(job).attempt == 1
    wrong.stop()
    start(env={} if is_old else OLD)
    Job.objects.filter(pk=job.id).stage()
    wait_for_state(job, JobState.SUCCEEDED)
    assert ledger.count("ran") == 1


def test_a_job_that_waits_for_other_code_can_be_cancelled(start: Start) -> None:
    start(env=OLD)
    job = hostile_jobs.new_with_the_deploy.enqueue(1)
    wait_until(lambda: state_of(job) == JobState.SCHEDULED)

    assert job.cancel()

    wait_for_state(job, JobState.CANCELLED)
