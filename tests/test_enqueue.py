"""From a call of a task to a row: one INSERT in the caller's transaction, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_jobs import enqueue_many
from django_jobs.compat import InvalidTask, task_enqueued
from django_jobs.enqueue import enqueue
from django_jobs.exceptions import InvalidArgument, UnknownTask
from django_jobs.models import Job
from django_jobs.notifications import can_notify
from django_jobs.signals import job_enqueued
from django_jobs.states import JobState

from . import tasks
from .rivals import Rival
from .rows import row

A_DAY = timedelta(days=1)


def statements(captured: CaptureQueriesContext, verb: str) -> list[str]:
    return [query["sql"] for query in captured.captured_queries if query["sql"].startswith(verb)]


def hints(captured: CaptureQueriesContext) -> list[str]:
    """Return the notifications sent, as SQL."""
    return [query["sql"] for query in captured.captured_queries if "pg_notify" in query["sql"]]


def raise_error(**kwargs: Any) -> None:
    raise RuntimeError("a receiver broke")


# One row


@pytest.mark.django_db
def test_a_job_has_what_its_task_and_the_call_say() -> None:
    result = tasks.send_mail.using(meta={"by": "test"}).enqueue("ada@example.com")

    job = row(result.id)
    assert (job.task_path, job.queue_name, job.priority) == ("tests.tasks.send_mail", "mail", 5)
    assert (job.args, job.kwargs, job.meta) == (["ada@example.com"], {}, {"by": "test"})
    assert (job.state, job.attempt, job.max_attempts, job.backend) == (JobState.READY, 0, 7, "default")
    assert job.enqueued_at == result.enqueued_at


@pytest.mark.django_db
def test_a_job_of_a_named_task_is_stored_under_its_name() -> None:
    result = tasks.send_receipt.enqueue(1)

    assert row(result.id).task_path == "orders.receipt"


@pytest.mark.django_db
@pytest.mark.parametrize("using", [{}, {"run_after": A_DAY}, {"run_after": datetime(2040, 1, 1, tzinfo=UTC)}])
def test_enqueueing_is_one_insert_and_no_other_statement(using: dict[str, Any]) -> None:
    with CaptureQueriesContext(connection) as captured:
        tasks.add.using(**using).enqueue(1, b=2)

    assert len(statements(captured, "INSERT")) == 1
    assert len(captured.captured_queries) == 1


@pytest.mark.django_db(transaction=True)
def test_a_job_enqueued_in_a_transaction_that_rolls_back_does_not_exist() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        tasks.noop.enqueue()
        raise ZeroDivisionError

    assert Job.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_job_enqueued_in_a_transaction_is_seen_by_others_after_its_commit() -> None:
    with Rival() as rival:
        with transaction.atomic():
            tasks.noop.enqueue()
            before = rival.run(Job.objects.count) if connection.features.has_select_for_update else 0
        after = rival.run(Job.objects.count)

    assert (before, after) == (0, 1)


@pytest.mark.django_db
@pytest.mark.parametrize("priority", [True, 1.0, Decimal(1)])
def test_a_priority_that_is_one_is_stored_as_one(priority: Any) -> None:
    result = tasks.noop.using(priority=priority).enqueue()

    assert row(result.id).priority == 1


# Later


@pytest.mark.django_db
def test_a_job_with_a_time_to_wait_for_is_scheduled() -> None:
    moment = timezone.now() + A_DAY

    job = row(tasks.noop.using(run_after=moment).enqueue().id)

    assert (job.state, job.run_after) == (JobState.SCHEDULED, moment)


@pytest.mark.django_db
@pytest.mark.parametrize("bulk", [False, True])
def test_a_timedelta_is_counted_by_the_databases_clock(bulk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timezone, "now", lambda: datetime(2001, 1, 1, tzinfo=UTC))
    later = tasks.noop.using(run_after=A_DAY)

    result = later.enqueue_many([((), {})])[0] if bulk else later.enqueue()

    job = row(result.id)
    assert abs(job.run_after - job.enqueued_at - A_DAY) < timedelta(milliseconds=2)
    assert abs(job.enqueued_at - datetime.now(UTC)) < timedelta(hours=1)


@pytest.mark.django_db
def test_a_receiver_sees_when_a_job_with_a_timedelta_will_run() -> None:
    seen: list[Job] = []

    def receive(job: Job, **kwargs: Any) -> None:
        seen.append(job)

    job_enqueued.connect(receive)
    try:
        tasks.noop.using(run_after=A_DAY).enqueue()
    finally:
        job_enqueued.disconnect(receive)

    assert seen[0].run_after == seen[0].enqueued_at + A_DAY


@pytest.mark.django_db
@pytest.mark.parametrize("moment", [timedelta(seconds=-5), datetime(2001, 1, 1, tzinfo=UTC)])
def test_a_job_whose_time_has_passed_is_due_at_once(moment: Any) -> None:
    result = tasks.noop.using(run_after=moment).enqueue()

    staged = Job.objects.stage_due()

    assert staged == 1
    assert row(result.id).state == JobState.READY


# Many


@pytest.mark.django_db
def test_many_jobs_are_one_insert_per_thousand_in_their_order() -> None:
    with CaptureQueriesContext(connection) as captured:
        results = tasks.add.enqueue_many([((number,), {"b": 1}) for number in range(2001)])

    ids = [int(result.id) for result in results]
    # A database that takes few parameters per statement needs more of them.
    per_insert = connection.ops.bulk_batch_size(Job._meta.local_concrete_fields[1:], range(2001))
    expected = -(-2001 // min(1000, per_insert))
    assert len(statements(captured, "INSERT")) <= expected
    assert ids == sorted(ids)
    assert list(Job.objects.order_by("pk").values_list("args", flat=True)) == [[number] for number in range(2001)]


@pytest.mark.django_db
def test_jobs_of_several_tasks_are_enqueued_together_by_task_or_path() -> None:
    results = enqueue_many([(tasks.add, (1,), {}), ("orders.receipt", (2,), {}), (tasks.made_by_django, (3,), {})])

    assert [row(result.id).task_path for result in results] == [
        "tests.tasks.add",
        "orders.receipt",
        "tests.tasks.made_by_django",
    ]


@pytest.mark.django_db
def test_enqueueing_nothing_does_nothing() -> None:
    assert enqueue_many([]) == []
    assert tasks.add.enqueue_many([]) == []
    assert Job.objects.count() == 0


@pytest.mark.django_db
def test_one_bad_argument_among_many_refuses_all() -> None:
    with pytest.raises(InvalidArgument, match="argument 1"):
        tasks.add.enqueue_many([((1,), {}), ((object(),), {})])

    assert Job.objects.count() == 0


@pytest.mark.django_db
def test_one_unknown_task_among_many_refuses_all() -> None:
    with pytest.raises(UnknownTask):
        enqueue_many([(tasks.add, (1,), {}), ("os.system", ("ls",), {})])

    assert Job.objects.count() == 0


# By path


@pytest.mark.django_db
def test_a_job_is_enqueued_by_the_path_of_a_declared_task() -> None:
    result = enqueue("tests.tasks.add", [1], {"b": 2}, queue_name="slow", priority=3)

    job = row(result.id)
    assert (job.task_path, job.args, job.kwargs) == ("tests.tasks.add", [1], {"b": 2})
    assert (job.queue_name, job.priority) == ("slow", 3)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["os.system", "tests.tasks.gone", "tests.rows.row", ""])
def test_a_path_that_is_no_declared_task_is_refused(path: str) -> None:
    with pytest.raises(UnknownTask, match="is not a declared task"):
        enqueue(path)

    assert Job.objects.count() == 0


# Signals and hints


@pytest.mark.django_db
@pytest.mark.parametrize("signal", [job_enqueued, task_enqueued], ids=["job_enqueued", "task_enqueued"])
@pytest.mark.parametrize("receiver", [raise_error, partial(raise_error)], ids=["function", "partial"])
def test_a_receiver_that_raises_does_not_keep_a_job_from_being_enqueued(
    signal: Any, receiver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    signal.connect(receiver)
    try:
        tasks.noop.enqueue()
    finally:
        signal.disconnect(receiver)

    assert Job.objects.count() == 1
    assert "a receiver broke" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_hints_follow_the_commit_once_per_queue_and_kind() -> None:
    expected = 3 if can_notify(connection) else 0
    with CaptureQueriesContext(connection) as captured:
        with transaction.atomic():
            for _ in range(3):
                tasks.noop.enqueue()
                tasks.send_mail.enqueue("ada@example.com")
                tasks.noop.using(run_after=A_DAY).enqueue()
            before = len(hints(captured))
        after = hints(captured)

    assert before == 0
    assert len(after) == expected
    assert {word for word in ("ready default", "ready mail", "due") if any(word in sql for sql in after)} == (
        {"ready default", "ready mail", "due"} if expected else set()
    )


@pytest.mark.django_db(transaction=True)
def test_no_hint_follows_a_rollback() -> None:
    with CaptureQueriesContext(connection) as captured, pytest.raises(ZeroDivisionError), transaction.atomic():
        tasks.noop.enqueue()
        raise ZeroDivisionError

    assert hints(captured) == []


@pytest.mark.django_db(transaction=True)
def test_a_hint_of_a_rolled_back_savepoint_is_not_sent_and_a_later_one_is() -> None:
    expected = 1 if can_notify(connection) else 0
    with CaptureQueriesContext(connection) as captured, transaction.atomic():
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            tasks.noop.enqueue()
            raise ZeroDivisionError
        tasks.noop.enqueue()

    assert len(hints(captured)) == expected


# Where the backend refuses


@pytest.mark.django_db
def test_a_queue_that_the_backend_does_not_take_is_refused(settings: Any) -> None:
    elsewhere = tasks.noop.using(queue_name="elsewhere")
    settings.TASKS = {"default": {"BACKEND": "django_jobs.backend.JobsBackend", "QUEUES": ["default"]}}

    with pytest.raises(InvalidTask, match="Queue 'elsewhere' is not valid for backend"):
        elsewhere.enqueue()
    with pytest.raises(InvalidTask, match="Queue 'elsewhere' is not valid for backend"):
        elsewhere.enqueue_many([((), {})])

    assert Job.objects.count() == 0
