"""Queues: declared, served by patterns, paused and resumed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_jobs.exceptions import InvalidOption
from django_jobs.models import Queue
from django_jobs.models.queue import matches
from django_jobs.signals import queue_paused, queue_resumed

from .rivals import TIMEOUT, Rival, wait_until_blocked

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("patterns", "served"),
    [
        ([], ["default", "mail", "mail-bulk", "reports"]),
        (["*"], ["default", "mail", "mail-bulk", "reports"]),
        (["mail"], ["mail"]),
        (["mail*"], ["mail", "mail-bulk"]),
        (["mail*", "reports"], ["mail", "mail-bulk", "reports"]),
        (["!mail"], ["default", "mail-bulk", "reports"]),
        (["!mail*"], ["default", "reports"]),
        (["mail*", "!mail-bulk"], ["mail"]),
        (["*", "!*"], []),
        (["nothing"], []),
        ([""], []),
    ],
)
def test_a_worker_serves_the_queues_that_its_patterns_name(patterns: list[str], served: list[str]) -> None:
    Queue.objects.declare_all(["reports", "mail", "default", "mail-bulk"])

    assert Queue.objects.served_by(patterns) == served


def test_a_pattern_is_matched_as_it_stands() -> None:
    assert matches("a.b", ["a.b"])
    assert not matches("aXb", ["a.b"])
    assert not matches("mailing", ["mail"])


# Declaring


def test_declaring_makes_the_queue_once() -> None:
    first = Queue.objects.declare("mail", keep_failed=HOUR)

    second = Queue.objects.declare("mail", keep_failed=2 * HOUR)

    assert first == second
    assert second.keep_failed == HOUR


def test_declaring_with_upsert_takes_the_settings() -> None:
    Queue.objects.declare("mail", keep_failed=HOUR, keep_succeeded=HOUR)

    changed = Queue.objects.declare("mail", upsert=True, keep_failed=2 * HOUR)

    assert (changed.keep_failed, changed.keep_succeeded) == (2 * HOUR, HOUR)


def test_a_setting_that_queues_do_not_have_is_refused_with_the_closest() -> None:
    with pytest.raises(InvalidOption, match="A queue has no setting 'keep_faild'. Did you mean 'keep_failed'?"):
        Queue.objects.declare("mail", keep_faild=HOUR)

    assert not Queue.objects.exists()


@pytest.mark.parametrize("upsert", [False, True])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("", {}),
        ("q" * 101, {}),
        ("a\x00", {}),
        (5, {}),
        ("mail", {"keep_failed": "soon"}),
        ("mail", {"resume_at": "tomorrow"}),
        ("mail", {"paused_reason": "r" * 256}),
    ],
)
def test_a_name_or_value_that_cannot_be_stored_is_refused(name: Any, settings: dict[str, Any], upsert: bool) -> None:
    with pytest.raises(InvalidOption):
        Queue.objects.declare(name, upsert=upsert, **settings)

    assert not Queue.objects.exists()


def test_many_are_declared_in_two_statements() -> None:
    Queue.objects.declare("mail")

    with CaptureQueriesContext(connection) as captured:
        Queue.objects.declare_all(["mail", "reports", "default"])

    assert len(captured) <= 2
    assert set(Queue.objects.values_list("name", flat=True)) == {"default", "mail", "reports"}


@pytest.mark.django_db(transaction=True)
def test_two_that_declare_one_queue_at_once_agree() -> None:
    with Rival() as rival, Rival() as second:
        rival.begin()
        rival.run(Queue.objects.declare_all, ["mail"])
        declaring = second.start(Queue.objects.declare_all, ["mail", "reports"])
        wait_until_blocked()
        rival.commit()
        declaring.result(TIMEOUT)

    assert sorted(Queue.objects.values_list("name", flat=True)) == ["mail", "reports"]


# Pausing


def test_a_paused_queue_is_not_served_until_it_is_resumed() -> None:
    Queue.objects.declare_all(["mail", "reports"])

    paused = Queue.objects.pause("mail", reason="the provider is down")
    during = Queue.objects.served_by(["*"])
    resumed = Queue.objects.resume("mail")

    assert (paused, resumed) == (True, True)
    assert during == ["reports"]
    assert Queue.objects.served_by(["*"]) == ["mail", "reports"]


def test_a_pause_says_since_when_and_why_and_leaves_no_trace() -> None:
    Queue.objects.declare("mail")
    Queue.objects.pause("mail", reason="the provider is down")
    during = Queue.objects.get()
    Queue.objects.resume("mail")
    after = Queue.objects.get()

    assert during.paused_at is not None
    assert during.paused_reason == "the provider is down"
    assert (after.paused_at, after.paused_reason, after.resume_at) == (None, "", None)


def test_pausing_and_resuming_twice_or_nothing_says_no() -> None:
    Queue.objects.declare("mail")

    assert [Queue.objects.pause("mail"), Queue.objects.pause("mail")] == [True, False]
    assert [Queue.objects.resume("mail"), Queue.objects.resume("mail")] == [True, False]
    assert [Queue.objects.pause("missing"), Queue.objects.resume("missing")] == [False, False]


def test_a_pause_lasts_until_its_end() -> None:
    Queue.objects.declare("mail")

    Queue.objects.pause("mail", resume_at=timezone.now() + HOUR)

    assert Queue.objects.served_by(["*"]) == []


def test_a_pause_whose_end_has_passed_is_over() -> None:
    Queue.objects.declare("mail")
    Queue.objects.pause("mail", resume_at=timezone.now() - HOUR)

    assert Queue.objects.served_by(["*"]) == ["mail"]
    assert Queue.objects.resume("mail") is False


@pytest.mark.parametrize("end", ["tonight", 60, HOUR])
def test_an_end_of_a_pause_that_is_no_time_is_refused(end: Any) -> None:
    Queue.objects.declare("mail")

    with pytest.raises(InvalidOption, match="resume_at, the end of a pause, is a datetime"):
        Queue.objects.pause("mail", resume_at=end)

    assert Queue.objects.served_by(["*"]) == ["mail"]


def test_a_queue_whose_pause_is_over_can_be_paused_again() -> None:
    Queue.objects.declare("mail")
    Queue.objects.pause("mail", reason="first", resume_at=timezone.now() - HOUR)

    paused = Queue.objects.pause("mail", reason="second")

    assert paused
    assert (Queue.objects.get().paused_reason, Queue.objects.get().resume_at) == ("second", None)
    assert Queue.objects.served_by(["*"]) == []


def test_receivers_are_told_once() -> None:
    heard: list[Any] = []

    def hear_pause(queue: str, reason: str, **kwargs: Any) -> None:
        heard.append((queue, reason))

    def hear_resume(queue: str, **kwargs: Any) -> None:
        heard.append(queue)

    Queue.objects.declare("mail")
    queue_paused.connect(hear_pause)
    queue_resumed.connect(hear_resume)
    try:
        for _ in range(2):
            Queue.objects.pause("mail", reason="tired")
        for _ in range(2):
            Queue.objects.resume("mail")
    finally:
        queue_paused.disconnect(hear_pause)
        queue_resumed.disconnect(hear_resume)

    assert heard == [("mail", "tired"), "mail"]
