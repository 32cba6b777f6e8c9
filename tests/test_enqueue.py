"""From a call of a task to a row: one INSERT in the caller's transaction, and what is refused."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_jobs import enqueue_many
from django_jobs.compat import InvalidTask, TaskResultStatus, task_enqueued
from django_jobs.enqueue import enqueue
from django_jobs.exceptions import InvalidArgument, JobsError, UnknownTask
from django_jobs.models import Job
from django_jobs.notifications import can_notify
from django_jobs.signals import job_enqueued
from django_jobs.states import JobState

from . import tasks
from .rivals import Rival, wait_until_blocked
from .rows import claim, outcome, row, start_worker, write

A_DAY = timedelta(days=1)


def statements(captured: CaptureQueriesContext, verb: str) -> list[str]:
    return [query["sql"] for query in captured.captured_queries if query["sql"].startswith(verb)]


def hints(captured: CaptureQueriesContext) -> list[str]:
    """Return the notifications sent, as SQL."""
    return [query["sql"] for query in captured.captured_queries if "pg_notify" in query["sql"]]


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


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


@pytest.mark.django_db
def test_unique_jobs_among_others_keep_their_place_in_the_order() -> None:
    unique = tasks.noop.using(unique_key="once")

    enqueue_many([(tasks.noop, (1,), {}), (unique, (2,), {}), (tasks.noop, (3,), {})])

    assert list(Job.objects.order_by("pk").values_list("args", flat=True)) == [[1], [2], [3]]


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


# Bad arguments


BAD = [
    pytest.param(object(), "Unsupported type", id="object"),
    pytest.param(datetime(2030, 1, 1, tzinfo=UTC), "Unsupported type", id="datetime"),
    pytest.param(uuid.uuid4(), "Unsupported type", id="uuid"),
    pytest.param(Decimal("1.5"), "Unsupported type", id="decimal"),
    pytest.param({1, 2}, "Unsupported type", id="set"),
    pytest.param({"a": [{"b": {3}}]}, "Unsupported type", id="deep inside"),
    pytest.param(b"\xff", "Unsupported value", id="bytes"),
    pytest.param(float("nan"), "nan is not a JSON number", id="NaN"),
    pytest.param(float("-inf"), "-inf is not a JSON number", id="infinity"),
    pytest.param([1, {"a": float("inf")}], "inf is not a JSON number", id="infinity inside"),
    pytest.param("a\x00b", "it contains a NUL character", id="NUL"),
    pytest.param({"a\x00": 1}, "it contains a NUL character", id="NUL in a key"),
    pytest.param("\ud800", "it contains a lone surrogate", id="surrogate"),
    pytest.param(10**5000, "Exceeds the limit", id="huge number"),
    pytest.param({(1, 2): 3}, "unhashable", id="tuple as a key"),
    pytest.param(nested(100_000), "it is nested too deeply", id="nested"),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("value", "reason"), BAD)
def test_a_positional_argument_that_json_cannot_hold_is_refused_by_place_and_name(value: Any, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        tasks.add.enqueue(1, value)

    assert str(caught.value).startswith("argument 2 ('b') cannot be stored as JSON: ")
    assert reason in str(caught.value)
    assert Job.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize(("value", "reason"), BAD)
def test_a_keyword_argument_that_json_cannot_hold_is_refused_by_name(value: Any, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        tasks.add.enqueue(a=1, b=value)

    assert str(caught.value).startswith("argument 'b' cannot be stored as JSON: ")
    assert reason in str(caught.value)
    assert Job.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize(("value", "reason"), BAD)
def test_a_note_that_json_cannot_hold_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(InvalidArgument, match="^meta cannot be stored as JSON: "):
        tasks.noop.using(meta={"note": value}).enqueue()


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["a\x00", "\ud800"])
def test_an_argument_with_a_name_that_cannot_be_stored_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="^the name '.*' of an argument cannot be stored"):
        tasks.noop.enqueue(**{name: 1})


@pytest.mark.django_db
def test_the_context_is_not_counted_among_the_arguments() -> None:
    with pytest.raises(InvalidArgument, match=r"^argument 1 \('subject'\) "):
        tasks.tell_attempt.enqueue(object())


def test_a_model_instance_is_refused_with_the_advice_to_pass_its_key() -> None:
    with pytest.raises(InvalidArgument, match="Pass its primary key and load it in the task."):
        tasks.noop.enqueue(ContentType(pk=1))


def test_the_error_is_of_our_tree_and_what_django_documents() -> None:
    assert issubclass(InvalidArgument, JobsError)
    assert issubclass(InvalidArgument, TypeError)


@pytest.mark.django_db
def test_arguments_over_the_limit_are_refused_with_the_largest_named(settings: Any) -> None:
    settings.DJANGO_JOBS = {"MAX_ARGUMENT_BYTES": 100}

    with pytest.raises(InvalidArgument) as caught:
        tasks.add.enqueue("x" * 40, b="y" * 60)

    assert "more than MAX_ARGUMENT_BYTES (100). The largest is argument b (62 bytes)" in str(caught.value)
    assert Job.objects.count() == 0


@pytest.mark.django_db
def test_arguments_up_to_the_limit_are_stored() -> None:
    text = "x" * (1024 * 1024 - 2)

    result = tasks.noop.enqueue(text)

    assert row(result.id).args == [text]


@pytest.mark.django_db
def test_what_json_can_hold_is_stored_as_json_holds_it() -> None:
    result = tasks.noop.enqueue((1, 2.5, None, True), {"ключ": ["ü", "😀", b"bytes"]}, "", -(10**30))

    expected = [[1, 2.5, None, True], {"ключ": ["ü", "😀", "bytes"]}, "", -(10**30)]
    assert row(result.id).args == expected
    assert result.args == expected


# Unique keys


@pytest.mark.django_db
def test_a_second_job_with_a_unique_key_is_the_first() -> None:
    unique = tasks.add.using(unique_key="once")

    first, second = unique.enqueue(1), unique.enqueue(2)

    assert second.id == first.id
    assert list(Job.objects.values_list("args", flat=True)) == [[1]]


@pytest.mark.django_db
def test_a_second_result_with_a_unique_key_tells_how_far_the_first_job_is() -> None:
    unique = tasks.add.using(unique_key="once")
    unique.enqueue(1)
    start_worker()
    claim()

    second = unique.enqueue(2)

    assert (second.status, second.args, second.attempts) == (TaskResultStatus.RUNNING, [1], 1)
    assert second.started_at is not None


@pytest.mark.django_db
def test_a_unique_key_is_free_again_once_its_job_has_ended() -> None:
    unique = tasks.noop.using(unique_key="once")
    first = unique.enqueue()
    start_worker()
    write(outcome(claim()[0], "succeed"))

    second = unique.enqueue()

    assert second.id != first.id


@pytest.mark.django_db
def test_a_unique_key_does_not_abort_the_callers_transaction() -> None:
    unique = tasks.noop.using(unique_key="once")
    with transaction.atomic():
        unique.enqueue()
        unique.enqueue()
        tasks.noop.enqueue()

    assert Job.objects.count() == 2


@pytest.mark.django_db
def test_only_the_job_that_is_new_is_announced() -> None:
    announced: list[str] = []

    def receive_job(**kwargs: Any) -> None:
        announced.append("job")

    def receive_task(**kwargs: Any) -> None:
        announced.append("task")

    unique = tasks.noop.using(unique_key="once", run_after=A_DAY)
    job_enqueued.connect(receive_job)
    task_enqueued.connect(receive_task)
    try:
        unique.enqueue()
        unique.enqueue_many([((), {}), ((), {})])
    finally:
        job_enqueued.disconnect(receive_job)
        task_enqueued.disconnect(receive_task)

    assert announced == ["job", "task"]


@pytest.mark.django_db(transaction=True)
def test_of_two_sessions_that_enqueue_one_unique_key_at_once_one_waits_and_gets_the_others_job() -> None:
    unique = tasks.noop.using(unique_key="once")
    with Rival() as rival:
        rival.begin()
        first = rival.run(unique.enqueue)
        with Rival() as second_rival:
            waiting = second_rival.start(unique.enqueue)
            wait_until_blocked()
            rival.commit()
            second = waiting.result(20)

    assert second.id == first.id
    assert Job.objects.count() == 1


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
