"""Unique jobs, one at a time: who has a key, for how long, and what another call becomes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from django_jobs import enqueue_many, signals
from django_jobs.compat import TaskResultStatus, task_enqueued
from django_jobs.exceptions import DuplicateJob
from django_jobs.models import Job, job_queryset
from django_jobs.models.database import from_now
from django_jobs.models.insert import can_insert_values
from django_jobs.models.unique import holders
from django_jobs.states import FINISHED, UNFINISHED, UNSTARTED, JobState
from django_jobs.testing import run_jobs

from . import tasks
from .rows import HOUR, WORKER, claim, end_lease, job_in, outcome, row, start_worker, state_of, write
from .unique_tasks import index, remind, ship, ship_latest, ship_once, tell

pytestmark = pytest.mark.django_db
SOON = timedelta(seconds=5)


@pytest.fixture(params=["by a statement", "by the ORM"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enqueue in both ways, of which a database without sets in JSON has the second only."""
    if request.param == "by the ORM":
        monkeypatch.setattr(job_queryset, "can_insert_values", lambda connection: False)
        monkeypatch.setattr("django_jobs.models.unique.can_insert_values", lambda connection: False)


def put(job: Any, state: JobState, **changes: Any) -> None:
    """Bring a job into a state that its task did not begin in."""
    Job.objects.filter(pk=job.id).update(state=state, **changes)


def let_period_pass(job: Any) -> None:
    """Let the time have come until which the job keeps its key."""
    assert Job.objects.filter(pk=job.id).update(unique_until=from_now(-timedelta(seconds=1))) == 1


# Return


@pytest.mark.usefixtures("way")
def test_a_second_job_with_a_unique_key_is_the_first() -> None:
    first, second = ship.enqueue(1, "a"), ship.enqueue(1, "b")

    assert (second.id, first.is_new, second.is_new) == (first.id, True, False)
    assert list(Job.objects.values_list("args", flat=True)) == [[1, "a"]]


def test_a_second_result_with_a_unique_key_tells_how_far_the_first_job_is() -> None:
    ship.enqueue(1)
    start_worker()
    claim()

    second = ship.enqueue(1, "b")

    assert (second.status, second.args, second.attempts) == (TaskResultStatus.RUNNING, [1], 1)
    assert second.started_at is not None


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("state", UNFINISHED)
def test_an_unfinished_job_has_its_key_in_every_state(state: JobState) -> None:
    first = job_in(state, unique_key="one")

    second = tasks.noop.using(unique_key="one").enqueue()

    assert (second.id, second.is_new) == (str(first.pk), False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("state", FINISHED)
def test_a_unique_key_is_free_again_once_its_job_has_ended(state: JobState) -> None:
    first = job_in(state, unique_key="one")

    second = tasks.noop.using(unique_key="one").enqueue()

    assert second.is_new
    assert second.id != str(first.pk)


def test_a_result_that_is_not_new_stays_so_when_it_is_refreshed_and_equals_the_one_that_is_read() -> None:
    ship.enqueue(1)
    second = ship.enqueue(1)

    second.refresh()

    assert second.is_new is False
    assert ship.get_result(second.id) == second


def test_a_job_of_a_task_that_is_declared_elsewhere_only_is_returned_too() -> None:
    first = tasks.noop.using(unique_key="one").enqueue()
    Job.objects.filter(pk=first.id).update(task_path="elsewhere.task")

    second = ship.using(unique_key="one").enqueue(1)

    assert (second.id, second.is_new) == (first.id, False)


def test_only_the_job_that_is_new_is_announced() -> None:
    announced: list[str] = []

    def receive_job(**kwargs: Any) -> None:
        announced.append("job")

    def receive_task(**kwargs: Any) -> None:
        announced.append("task")

    signals.job_enqueued.connect(receive_job)
    task_enqueued.connect(receive_task)
    try:
        ship.enqueue(1)
        ship.enqueue_many([((1,), {}), ((1,), {})])
        ship_latest.enqueue(1)
        ship_latest.enqueue(1)
    finally:
        signals.job_enqueued.disconnect(receive_job)
        task_enqueued.disconnect(receive_task)

    assert announced == ["job", "task"] * 2


def test_a_receiver_sees_how_long_a_key_is_kept() -> None:
    seen: list[Job] = []

    def receive(job: Job, **kwargs: Any) -> None:
        seen.append(job)

    signals.job_enqueued.connect(receive)
    try:
        remind.enqueue(1)
    finally:
        signals.job_enqueued.disconnect(receive)

    assert seen[0].unique_key == row(seen[0].pk).unique_key
    assert seen[0].unique_until == seen[0].enqueued_at + HOUR


# Statements


def test_a_new_unique_job_is_one_insert_without_a_savepoint() -> None:
    if not can_insert_values(connection):
        pytest.skip("This database is written by the ORM.")
    with CaptureQueriesContext(connection) as captured:
        ship.enqueue(1)

    assert [query["sql"].split()[0] for query in captured.captured_queries] == ["INSERT"]


def test_a_plain_job_is_inserted_without_a_word_about_conflicts() -> None:
    with CaptureQueriesContext(connection) as captured:
        tasks.noop.enqueue()
        tasks.noop.enqueue_many([((), {})] * 3)

    assert not [query for query in captured.captured_queries if "CONFLICT" in query["sql"]]


@pytest.mark.usefixtures("way")
def test_a_taken_key_does_not_abort_the_callers_transaction() -> None:
    with transaction.atomic():
        ship.enqueue(1)
        ship.enqueue(1)
        with pytest.raises(DuplicateJob):
            ship_once.using(unique_key="one").enqueue(1)
            ship_once.using(unique_key="one").enqueue(1)
        ship_latest.enqueue(1)
        ship_latest.enqueue(1)
        tasks.noop.enqueue()

    assert Job.objects.count() == 4


def test_the_holders_of_keys_are_found_by_the_index() -> None:
    if connection.features.has_select_for_update:
        # The table is small.
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")

    plan = holders(Job.objects.all(), {"a", "b"}).explain()

    assert "django_jobs_unique_key" in plan


# Raise


@pytest.mark.usefixtures("way")
def test_a_taken_key_can_be_an_error_that_names_the_job_and_the_key() -> None:
    first = ship_once.enqueue(1)

    with pytest.raises(DuplicateJob) as caught:
        ship_once.enqueue(1, "b")

    error = caught.value
    assert (error.job_id, error.unique_key) == (first.id, row(first.id).unique_key)
    assert str(error) == (
        f"Job #{first.id} has the unique key {error.unique_key!r} already: "
        "no job of tests.unique_tasks.ship_once was enqueued."
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert ship_once.get_result(error.job_id) == first
    assert Job.objects.count() == 1


# Replace


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("state", UNSTARTED)
def test_a_job_that_has_not_started_takes_the_values_of_the_new_call(state: JobState) -> None:
    first = ship_latest.enqueue(1, "a")
    put(first, state)
    moment = datetime(2040, 1, 1, tzinfo=UTC)

    second = ship_latest.using(priority=7, run_after=moment, meta={"by": "me"}, max_attempts=9).enqueue(1, note="b")

    job = row(first.id)
    assert (second.id, second.is_new, second.args, second.kwargs) == (first.id, False, [1], {"note": "b"})
    assert (job.args, job.kwargs) == ([1], {"note": "b"})
    assert (job.priority, job.run_after, job.meta, job.max_attempts) == (7, moment, {"by": "me"}, 9)
    assert job.state == (JobState.WAITING if state == JobState.WAITING else JobState.SCHEDULED)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("state", "then"),
    [
        (JobState.WAITING, JobState.WAITING),
        (JobState.SCHEDULED, JobState.READY),
        (JobState.READY, JobState.READY),
    ],
)
def test_a_job_that_is_replaced_by_one_without_a_time_to_wait_for_waits_no_longer(
    state: JobState, then: JobState
) -> None:
    first = ship_latest.using(run_after=HOUR).enqueue(1)
    put(first, state)

    ship_latest.enqueue(1)

    assert (state_of(first), row(first.id).run_after) == (then, None)


def test_a_replaced_delay_is_counted_by_the_databases_clock() -> None:
    first = ship_latest.enqueue(1)
    before = Job.objects.values_list(Now(), flat=True).get()

    ship_latest.using(run_after=HOUR).enqueue(1)

    waits = row(first.id).run_after - before
    assert HOUR <= waits < HOUR + timedelta(minutes=1)


def test_a_job_that_waits_for_its_retry_gets_new_arguments_and_the_attempts_of_the_new_call() -> None:
    start_worker()
    first = ship_latest.enqueue(1, "a")
    write(outcome(claim()[0], "retry", delay=3600.0))

    ship_latest.enqueue(1, "b")

    job = row(first.id)
    assert (job.args, job.state, job.attempt, job.max_attempts) == ([1, "b"], JobState.READY, 1, 4)


@pytest.mark.usefixtures("way")
def test_a_running_job_is_returned_unchanged() -> None:
    start_worker()
    first = ship_latest.enqueue(1, "a")
    claim()
    before = Job.objects.filter(pk=first.id).values().get()

    second = ship_latest.enqueue(1, "b")

    assert (second.id, second.is_new, second.args) == (first.id, False, [1, "a"])
    assert Job.objects.filter(pk=first.id).values().get() == before


def test_a_job_of_another_task_is_returned_unchanged() -> None:
    first = tasks.noop.using(unique_key="one").enqueue("a")

    second = ship_latest.using(unique_key="one").enqueue(1, "b")

    assert (second.id, second.is_new, row(first.id).args) == (first.id, False, ["a"])


def test_a_job_that_was_enqueued_under_an_older_name_of_its_task_is_replaced() -> None:
    task = tasks.send_receipt
    first = task.using(unique_key="one").enqueue(1)
    Job.objects.filter(pk=first.id).update(task_path="orders.mail_receipt")
    replacing = type(task)(
        **{
            name: getattr(task, name)
            for name in ("func", "priority", "queue_name", "backend", "run_after", "registered_name", "aliases")
        },
        unique_key="one",
        on_conflict="replace",
    )

    replacing.enqueue(2)

    assert row(first.id).args == [2]


def test_workers_are_told_of_a_job_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    ship_latest.using(queue_name="mail").enqueue(1)
    monkeypatch.setattr("django_jobs.notifications.hint", lambda kind, name="": told.append((kind, name)))

    ship_latest.using(run_after=HOUR).enqueue(1)
    ship_latest.enqueue(1)

    assert told == [("due", ""), ("ready", "mail")]


# For a time


@pytest.mark.usefixtures("way")
def test_a_key_is_kept_for_its_period_by_the_databases_clock() -> None:
    job = row(remind.enqueue(1).id)

    assert job.unique_until is not None
    assert abs(job.unique_until - job.enqueued_at - HOUR) < timedelta(milliseconds=2)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("verb", ["succeed", "fail"])
def test_a_job_that_has_ended_keeps_its_key_for_the_period(verb: str) -> None:
    start_worker()
    first = remind.enqueue(1)
    write(outcome(claim()[0], verb))

    second = remind.enqueue(1)
    of_many = remind.enqueue_many([((1,), {})])[0]

    assert (second.id, second.is_new) == (of_many.id, of_many.is_new) == (first.id, False)
    assert second.is_finished


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("verb", ["succeed", "fail"])
def test_a_job_that_has_ended_gives_its_key_up_once_the_period_has_passed(verb: str) -> None:
    start_worker()
    first = remind.enqueue(1)
    write(outcome(claim()[0], verb))
    let_period_pass(first)

    second = remind.enqueue(1)

    assert second.is_new
    assert row(first.id).unique_until is None
    assert row(second.id).unique_until is not None


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("state", UNFINISHED)
def test_an_unfinished_job_keeps_its_key_when_the_period_has_passed(state: JobState) -> None:
    first = remind.enqueue(1)
    put(first, state)
    let_period_pass(first)

    second = remind.enqueue(1)

    assert (second.id, second.is_new) == (first.id, False)


def test_an_explicit_key_is_kept_for_the_period_too() -> None:
    start_worker()
    first = remind.using(unique_key="one").enqueue(1)
    write(outcome(claim()[0], "succeed"))

    second = remind.using(unique_key="one").enqueue(2)

    assert (second.id, second.is_new) == (first.id, False)


def test_a_period_without_a_key_is_nothing() -> None:
    from .test_unique_keys import declared, takes_two

    result = declared(takes_two, unique=lambda order_id: None, unique_for=HOUR).enqueue(1)

    assert (row(result.id).unique_key, row(result.id).unique_until) == (None, None)


def test_a_failing_insert_frees_no_key_of_a_job_whose_period_goes_on() -> None:
    start_worker()
    first = remind.enqueue(1)
    write(outcome(claim()[0], "succeed"))
    until = row(first.id).unique_until

    remind.enqueue(1)

    assert row(first.id).unique_until == until


# The last call wins


@pytest.mark.usefixtures("way")
def test_a_job_of_a_burst_of_calls_runs_a_period_after_the_last_with_its_arguments() -> None:
    first = index.enqueue(1, "a")
    Job.objects.filter(pk=first.id).update(run_after=from_now(SOON))

    second = index.enqueue(1, "b")

    job = row(first.id)
    before = Job.objects.values_list(Now(), flat=True).get()
    assert (second.id, second.is_new) == (first.id, False)
    assert (job.state, job.args, job.unique_until) == (JobState.SCHEDULED, [1, "b"], None)
    assert HOUR - timedelta(minutes=1) < job.run_after - before <= HOUR
    assert run_jobs() == 0
    assert run_jobs(include_scheduled=True) == 1
    assert index.get_result(first.id).return_value == "b"


@pytest.mark.usefixtures("way")
def test_a_job_that_was_due_already_but_has_not_begun_waits_for_quiet_again() -> None:
    first = index.enqueue(1)
    Job.objects.all().stage()

    index.enqueue(1)

    assert state_of(first) == JobState.SCHEDULED


def test_a_key_is_free_when_the_job_of_a_burst_has_ended() -> None:
    first = index.enqueue(1)
    run_jobs(include_scheduled=True)

    second = index.enqueue(1)

    assert second.is_new
    assert second.id != first.id


def test_with_a_time_of_its_own_a_job_keeps_its_key_for_the_period_and_is_replaced_at_that_time() -> None:
    first = index.using(run_after=SOON).enqueue(1, "a")

    index.using(run_after=2 * SOON).enqueue(1, "b")

    job = row(first.id)
    assert job.args == [1, "b"]
    assert job.unique_until is not None
    assert job.run_after - job.enqueued_at < 3 * SOON + timedelta(minutes=1)
    run_jobs(include_scheduled=True)
    assert not index.using(run_after=SOON).enqueue(1).is_new


# Cancelled, deleted, requeued


def cancelled_before_its_start(job: Any) -> None:
    Job.objects.filter(pk=job.id).cancel()


def cancelled_as_it_ran(job: Any) -> None:
    claimed = claim()[0]
    Job.objects.filter(pk=job.id).cancel()
    assert row(job.id).unique_until is not None
    write(outcome(claimed, "succeed"))


def cancelled_and_given_back(job: Any) -> None:
    claimed = claim()[0]
    Job.objects.filter(pk=job.id).cancel()
    Job.objects.release(WORKER, [claimed.id])


def cancelled_and_lost(job: Any) -> None:
    from django_jobs.models.rescue import rescue_lost

    claim()
    Job.objects.filter(pk=job.id).cancel()
    end_lease()
    rescue_lost()


def cancelled_by_itself(job: Any) -> None:
    write(outcome(claim()[0], "cancel"))


@pytest.mark.parametrize(
    "cancel",
    [
        cancelled_before_its_start,
        cancelled_as_it_ran,
        cancelled_and_given_back,
        cancelled_and_lost,
        cancelled_by_itself,
    ],
)
def test_a_job_that_ends_as_cancelled_gives_its_key_up(cancel: Callable[[Any], None]) -> None:
    start_worker()
    first = remind.enqueue(1)

    cancel(first)

    assert state_of(first) == JobState.CANCELLED
    assert remind.enqueue(1).is_new


def test_a_job_that_keeps_its_key_is_not_pruned() -> None:
    start_worker()
    jobs = [remind.enqueue(number) for number in range(2)]
    write(*(outcome(each, "succeed") for each in claim()))
    let_period_pass(jobs[0])

    pruned = Job.objects.all().prune()

    assert pruned == 1
    assert [str(pk) for pk in Job.objects.values_list("pk", flat=True)] == [jobs[1].id]


def ended(number: int = 1) -> Any:
    """Return a job of ``remind`` that has failed."""
    result = remind.enqueue(number)
    write(outcome(claim()[0], "fail"))
    return result


def test_a_job_that_has_its_key_still_is_requeued() -> None:
    start_worker()
    job = ended()

    moved = Job.objects.all().requeue()

    assert (moved, state_of(job)) == (1, JobState.READY)
    assert not remind.enqueue(1).is_new


def test_a_job_whose_period_has_passed_is_requeued() -> None:
    start_worker()
    job = ended()
    let_period_pass(job)

    moved = Job.objects.all().requeue()

    assert (moved, state_of(job)) == (1, JobState.READY)


def test_a_job_is_requeued_though_another_has_not_given_up_its_key_whose_period_has_passed() -> None:
    start_worker()
    first = ended()
    let_period_pass(first)
    second = ended()
    let_period_pass(second)

    moved = Job.objects.filter(pk=first.id).requeue()

    assert (moved, state_of(first), state_of(second)) == (1, JobState.READY, JobState.FAILED)


def test_a_job_is_not_requeued_while_another_keeps_its_key() -> None:
    start_worker()
    first = ended()
    let_period_pass(first)
    second = ended()

    assert Job.objects.filter(pk=first.id).requeue() == 0
    assert Job.objects.all().requeue() == 1
    assert (state_of(first), state_of(second)) == (JobState.FAILED, JobState.READY)


def test_of_jobs_with_one_key_one_is_requeued_and_the_others_of_the_queryset_go_on() -> None:
    jobs = [job_in(JobState.FAILED, unique_key="one") for _ in range(3)]
    taken = job_in(JobState.FAILED, unique_key="two")
    job_in(JobState.READY, unique_key="two")
    free = [job_in(JobState.FAILED, unique_key="three"), job_in(JobState.CANCELLED)]

    moved = Job.objects.all().requeue()

    assert moved == 3
    assert [state_of(job) for job in jobs] == [JobState.READY, JobState.FAILED, JobState.FAILED]
    assert state_of(taken) == JobState.FAILED
    assert [state_of(job) for job in free] == [JobState.READY, JobState.READY]


# With other helpers


def test_a_task_with_a_context_is_unique_by_its_other_arguments_and_runs() -> None:
    first, second = tell.enqueue("rain"), tell.enqueue(subject="rain")

    assert second.id == first.id
    assert run_jobs() == 1
    assert state_of(first) == JobState.SUCCEEDED


def test_unique_jobs_among_others_keep_their_place_in_the_order() -> None:
    unique = tasks.noop.using(unique_key="once")

    enqueue_many([(tasks.noop, (1,), {}), (unique, (2,), {}), (tasks.noop, (3,), {})])

    assert list(Job.objects.order_by("pk").values_list("args", flat=True)) == [[1], [2], [3]]
