"""Hints through the database: heard where it can send them, and missed nowhere."""

from __future__ import annotations

import select
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_jobs import notifications
from django_jobs.models import Job, Queue
from django_jobs.notifications import Listener, can_notify, hint

from . import tasks
from .rivals import Rival
from .rows import HOUR, claim, claimed, outcome, start_worker, write

pytestmark = pytest.mark.django_db(transaction=True)

needs_hints = pytest.mark.usefixtures("hints")


@pytest.fixture
def hints() -> None:
    if not can_notify(connection):
        pytest.skip("This database sends no notifications.")


@pytest.fixture
def listener() -> Iterator[Listener]:
    opened = Listener()
    yield opened
    opened.close()


def heard(listener: Listener) -> set[str]:
    """Return what has arrived once the socket says that something has."""
    readable, _, _ = select.select([listener], [], [], 20)
    assert readable
    return listener.heard()


def nothing_heard(listener: Listener) -> bool:
    """Send a mark behind what may have been sent, and say whether the mark is all that arrives."""
    hint("mark")
    return heard(listener) == {"mark"}


@needs_hints
def test_a_hint_is_heard_with_its_kind_and_name(listener: Listener) -> None:
    hint(notifications.READY, "mail")

    assert heard(listener) == {"ready mail"}


@needs_hints
def test_a_hint_of_another_session_is_heard(listener: Listener) -> None:
    with Rival() as rival:
        rival.run(hint, notifications.DUE)

    assert heard(listener) == {"due"}


@needs_hints
def test_nothing_is_heard_before_the_commit_and_nothing_of_a_rollback(listener: Listener) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        tasks.noop.enqueue()
        raise ZeroDivisionError
    after_rollback = nothing_heard(listener)
    with transaction.atomic():
        tasks.noop.enqueue()
        with Rival() as rival:
            before_commit = rival.run(nothing_heard, listener)

    assert (after_rollback, before_commit) == (True, True)
    assert heard(listener) == {"ready default"}


@needs_hints
def test_looking_without_anything_to_hear_does_not_wait(listener: Listener) -> None:
    assert listener.heard() == set()


@needs_hints
def test_a_listener_that_was_closed_says_so() -> None:
    listener = Listener()
    listener.close()

    with pytest.raises(connection.Database.Error):
        listener.fileno()


@needs_hints
def test_a_name_with_quotes_and_letters_of_any_kind_arrives(listener: Listener) -> None:
    hint(notifications.READY, 'l\'été "q" ; %s')

    assert heard(listener) == {'ready l\'été "q" ; %s'}


@needs_hints
@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda: tasks.noop.enqueue(), {"ready default"}),
        (lambda: tasks.noop.enqueue_many([((), {})] * 3), {"ready default"}),
        (lambda: tasks.noop.using(run_after=HOUR).enqueue(), {"due"}),
        (lambda: Queue.objects.pause("mail"), {"queues"}),
        (lambda: Queue.objects.resume("paused"), {"queues"}),
    ],
    ids=["enqueue", "enqueue_many", "later", "pause", "resume"],
)
def test_what_workers_want_to_know_is_hinted_at(act: Any, expected: set[str]) -> None:
    Queue.objects.declare("mail")
    Queue.objects.declare("paused")
    Queue.objects.filter(name="paused").update(paused_at="2001-01-01T00:00Z")
    listener = Listener()

    act()

    said = heard(listener)
    listener.close()
    assert said == expected


@needs_hints
@pytest.mark.parametrize(
    ("verb", "expected"), [("retry", "due"), ("snooze", "due"), ("release", "ready mail")], ids=lambda value: value
)
def test_a_job_that_leaves_its_worker_is_hinted_at(verb: str, expected: str) -> None:
    start_worker()
    job = claimed(queue_name="mail")
    listener = Listener()

    write(outcome(job, verb))

    said = heard(listener)
    listener.close()
    assert said == {expected}


@needs_hints
def test_staged_requeued_and_cancelled_jobs_are_hinted_at() -> None:
    start_worker()
    tasks.noop.using(run_after=timedelta(seconds=-1), queue_name="due").enqueue()
    failed = claimed(queue_name="again")
    write(outcome(failed, "fail"))
    running = claimed(queue_name="running")
    listener = Listener()

    Job.objects.stage_due()
    Job.objects.filter(pk=failed.id).requeue()
    Job.objects.filter(pk=running.id).cancel()

    said: set[str] = set()
    while len(said) < 3:
        said |= heard(listener)
    listener.close()
    assert said == {"ready due", "ready again", "cancel"}


def test_with_hints_switched_off_nothing_is_sent(settings: Any) -> None:
    settings.DJANGO_JOBS = {"NOTIFY": False}

    with CaptureQueriesContext(connection) as captured:
        tasks.noop.enqueue()
        hint(notifications.DUE)

    assert not any("pg_notify" in query["sql"] for query in captured.captured_queries)


def test_where_the_database_sends_no_hints_everything_goes_on() -> None:
    if can_notify(connection):
        pytest.skip("This database sends notifications.")
    start_worker()

    hint(notifications.READY, "default")
    tasks.noop.enqueue()

    assert len(claim()) == 1
