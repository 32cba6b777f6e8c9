"""Hints that jobs are ready: one speaks for its process and queue for a while, and none that is needed is left out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test import TestCase

from django_jobs import notifications
from django_jobs.models import Job
from django_jobs.notifications import LOOKS_AGAIN, WINDOW, can_notify, hint

from . import tasks
from .clocks import StillClock
from .rivals import Rival
from .rows import HOUR

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("hints")]

MOMENT = WINDOW / 100


@pytest.fixture(autouse=True)
def every_hint_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the window as it is, unlike in other tests, and begin without a hint sent."""
    monkeypatch.setattr(notifications, "_sent", {})


@pytest.fixture
def hints() -> None:
    if not can_notify(connection):
        pytest.skip("This database sends no notifications.")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return StillClock(monkeypatch, notifications)


class Refused(Exception):
    """The driver's error of a server that sends no notification: too many wait to be heard."""

    sqlstate = "54000"


class Statements:
    """Sees every statement: keeps the payloads that were sent, takes time and fails as the test wants it."""

    def __init__(self) -> None:
        self.count = 0
        self.sent: list[str] = []
        self.before: Callable[[], None] = lambda: None
        self.error: Exception | None = None

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.count += 1
        self.before()
        notifies = "pg_notify" in sql
        if notifies and self.error is not None:
            raise self.error from Refused()
        result = execute(sql, params, many, context)
        if notifies:
            self.sent.append(params[-1])
        return result


@contextmanager
def watched() -> Iterator[Statements]:
    statements = Statements()
    with connection.execute_wrapper(statements):
        yield statements


def enqueue_in_transaction() -> None:
    with transaction.atomic():
        tasks.noop.enqueue()


ENQUEUES = pytest.mark.parametrize(
    "enqueue",
    [tasks.noop.enqueue, lambda: tasks.noop.enqueue_many([((), {})] * 2), enqueue_in_transaction],
    ids=["one", "many", "in a transaction"],
)


def test_one_job_and_its_hint_are_one_statement(clock: StillClock) -> None:
    connection.ensure_connection()
    with watched() as statements:
        tasks.noop.enqueue()

    assert (statements.count, statements.sent) == (1, ["ready default"])


@ENQUEUES
def test_a_hint_speaks_for_its_queue_until_the_window_ends(enqueue: Any, clock: StillClock) -> None:
    with watched() as statements:
        enqueue()
        enqueue()
        clock.advance(WINDOW / 2)
        enqueue()
        within = list(statements.sent)
        clock.advance(WINDOW / 2 + MOMENT)
        enqueue()

    assert (within, statements.sent) == (["ready default"], ["ready default"] * 2)


def test_each_queue_has_a_window_of_its_own(clock: StillClock) -> None:
    with watched() as statements:
        for queue_name in ("one", "two", "one", "two"):
            tasks.noop.using(queue_name=queue_name).enqueue()

    assert statements.sent == ["ready one", "ready two"]


def test_what_is_not_about_ready_jobs_is_always_said(clock: StillClock) -> None:
    with watched() as statements:
        for _ in range(2):
            tasks.noop.using(run_after=HOUR).enqueue()
            hint(notifications.CANCEL)
            hint(notifications.QUEUES)

    assert statements.sent == ["due", "cancel", "queues"] * 2


def test_the_threads_of_a_process_share_the_window(clock: StillClock) -> None:
    with Rival() as rival:
        rival.run(tasks.noop.enqueue)
        with watched() as statements:
            tasks.noop.enqueue()

    assert statements.sent == []


def test_ready_jobs_of_other_verbs_share_the_window(clock: StillClock) -> None:
    tasks.noop.using(run_after=-HOUR).enqueue_many([((), {})] * 2)
    with watched() as statements:
        Job.objects.stage_due(limit=1)
        tasks.noop.enqueue()
        Job.objects.stage_due()

    assert statements.sent == ["ready default"]


def test_whether_a_hint_is_due_is_decided_when_its_transaction_has_committed(clock: StillClock) -> None:
    with watched() as statements:
        tasks.noop.enqueue()
        with transaction.atomic():
            tasks.noop.enqueue()
            clock.advance(WINDOW + MOMENT)

    assert statements.sent == ["ready default"] * 2


def test_a_job_whose_insert_outlasts_the_window_has_a_hint_of_its_own(clock: StillClock) -> None:
    tasks.noop.enqueue()
    with watched() as statements:
        statements.before = lambda: clock.advance(WINDOW + MOMENT) if statements.count == 1 else None
        tasks.noop.enqueue()

    assert (statements.count, statements.sent) == (2, ["ready default"])


def test_a_job_at_the_end_of_a_window_takes_a_hint_along(clock: StillClock) -> None:
    tasks.noop.enqueue()
    clock.advance(0.9 * WINDOW)
    with watched() as statements:
        tasks.noop.enqueue()

    assert (statements.count, statements.sent) == (1, ["ready default"])


def test_a_window_begins_before_its_hint_can_be_heard(clock: StillClock) -> None:
    with watched() as statements:
        statements.before = lambda: clock.advance(WINDOW / 2 + MOMENT)
        tasks.noop.enqueue()
        statements.before = lambda: None
        clock.advance(WINDOW / 2)
        tasks.noop.enqueue()

    assert statements.sent == ["ready default"] * 2


def test_a_transaction_that_rolls_back_opens_no_window(clock: StillClock) -> None:
    with watched() as statements:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            tasks.noop.enqueue()
            raise ZeroDivisionError
        tasks.noop.enqueue()

    assert statements.sent == ["ready default"]


def test_an_insert_that_fails_opens_no_window(clock: StillClock) -> None:
    with watched() as statements:
        statements.error = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            tasks.noop.enqueue()
        statements.error = None
        tasks.noop.enqueue()

    assert statements.sent == ["ready default"]


@ENQUEUES
def test_a_hint_that_cannot_be_sent_harms_no_job_and_opens_no_window(
    enqueue: Any, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    with watched() as statements:
        statements.error = OperationalError("too many notifications in the NOTIFY queue")
        enqueue()
        written = Job.objects.count()
        statements.error = None
        enqueue()

    assert Job.objects.count() == 2 * written > 0
    assert statements.sent == ["ready default"]
    assert "too many notifications" in caplog.text


def test_in_a_test_that_never_commits_no_hint_speaks_for_others(clock: StillClock) -> None:
    with watched() as statements:
        with transaction.atomic():
            with TestCase.captureOnCommitCallbacks(execute=True):
                tasks.noop.enqueue()
            transaction.set_rollback(True)
        tasks.noop.enqueue()

    assert statements.sent == ["ready default"] * 2


def test_queues_with_ever_new_names_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_MOST_REMEMBERED", 3)

    for number in range(10):
        hint(notifications.READY, f"queue-{number}")

    assert len(notifications._sent) <= 3


@pytest.mark.parametrize("seed", range(4))
def test_a_worker_that_looks_when_it_hears_a_hint_and_twice_again_finds_every_job(
    seed: int, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    heard: list[float] = []
    committed: list[float] = []

    def take_time() -> None:
        clock.advance(chance.choice([0, MOMENT, WINDOW / 8, WINDOW / 2, 2 * WINDOW]))

    with watched() as statements:
        statements.before = take_time
        for _ in range(100):
            before = len(statements.sent)
            chance.choice([tasks.noop.enqueue, enqueue_in_transaction])()
            committed.append(clock.monotonic())
            heard += [clock.monotonic()] * (len(statements.sent) - before)
            clock.advance(chance.choice([0, MOMENT, WINDOW / 4, WINDOW, 3 * WINDOW]))

    looks = [at + later for at in heard for later in (0, *LOOKS_AGAIN)]
    assert len(heard) < len(committed)
    assert all(any(at <= look <= at + max(LOOKS_AGAIN) for look in looks) for at in committed)
