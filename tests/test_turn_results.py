"""What jobs return, stored by the turn that writes their successes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from django_jobs.models import Job, Queue, Result
from django_jobs.states import JobState

from .exchanges import Hand, enqueue, states
from .rows import WORKER

pytestmark = pytest.mark.django_db

VALUES = [
    0,
    False,
    "",
    "null",
    "NULL",
    "{a,b}",
    'a "quoted" \\ text, with \\u0041 and 100%s',
    "line\nbreak\ttab",
    "žluťoučký 🐎",
    [],
    {},
    [None, {"a": [1.5, True, "{}"]}],
    {"k'ey": '"'},
    2**70,
]


@pytest.fixture
def hand() -> Iterator[Hand]:
    Queue.objects.declare("default")
    with Hand(concurrency=len(VALUES)) as hand:
        yield hand


def test_results_of_every_kind_are_read_as_they_were_returned(hand: Hand) -> None:
    ids = enqueue(len(VALUES))
    hand.turn()
    for value in VALUES:
        hand.end(hand.begin(), result=value)

    hand.turn()

    stored: list[Any] = list(Result.objects.order_by("job_id").values_list("value", flat=True))
    assert stored == VALUES
    assert set(states(ids)) == {JobState.SUCCEEDED}


def test_a_job_that_returned_nothing_has_no_result_beside_others_that_have(hand: Hand) -> None:
    ids = enqueue(3)
    hand.turn()
    for value in (None, "second", None):
        hand.end(hand.begin(), result=value)

    hand.turn()

    assert list(Result.objects.values_list("job_id", "value")) == [(ids[1], "second")]


def test_a_result_takes_the_place_of_an_earlier_one(hand: Hand) -> None:
    [pk] = enqueue(1)
    Result.objects.create(job_id=pk, value="first")
    hand.turn()
    hand.end(hand.begin(), result="second")

    hand.turn()

    assert Result.objects.get(job_id=pk).value == "second"


def test_the_result_of_an_attempt_that_came_too_late_is_not_stored(hand: Hand) -> None:
    first, second = enqueue(2)
    hand.turn()
    jobs = [hand.begin(), hand.begin()]
    Job.objects.held_by(WORKER).filter(pk=first).release(WORKER, [first])
    for job in jobs:
        hand.end(job, result="late")

    hand.turn()

    assert list(Result.objects.values_list("job_id", flat=True)) == [second]
