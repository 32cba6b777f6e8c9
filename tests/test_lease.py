"""Who leads: a lease with one holder at a time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_jobs.models import Lease
from django_jobs.models.lease import LEADER

from .rivals import TIMEOUT, Rival, wait_until_blocked

pytestmark = pytest.mark.django_db

LONG = timedelta(seconds=30)
OVER = timedelta(seconds=-1)


def hold(holder: str, length: timedelta = LONG) -> bool:
    return Lease.objects.hold(LEADER, holder, length)


def test_the_first_to_ask_holds_the_lease() -> None:
    assert [hold("a"), hold("b")] == [True, False]
    assert Lease.objects.get().holder == "a"


def test_the_holder_extends_it() -> None:
    hold("a")
    before = Lease.objects.get().expires_at

    assert hold("a", LONG * 2)
    assert Lease.objects.get().expires_at > before


def test_a_lease_that_has_ended_goes_to_whoever_asks_next() -> None:
    hold("a", OVER)

    assert [hold("b"), hold("a")] == [True, False]


def test_a_holder_that_resigns_makes_room_at_once() -> None:
    hold("a")

    resigned = Lease.objects.resign(LEADER, "a")

    assert resigned
    assert hold("b")


def test_nobody_resigns_for_another() -> None:
    hold("a")

    assert Lease.objects.resign(LEADER, "b") is False
    assert hold("b") is False


def test_leases_of_other_names_are_independent() -> None:
    assert Lease.objects.hold("one", "a", LONG)
    assert Lease.objects.hold("two", "b", LONG)


@pytest.mark.django_db(transaction=True)
def test_of_two_that_ask_at_once_one_holds_it() -> None:
    with Rival() as rival, Rival() as second:
        rival.begin()
        first = rival.run(hold, "a")
        asking = second.start(hold, "b")
        wait_until_blocked()
        rival.commit()

        assert (first, asking.result(TIMEOUT)) == (True, False)


@pytest.mark.django_db(transaction=True)
def test_of_two_that_want_an_ended_lease_at_once_one_holds_it() -> None:
    hold("old", OVER)
    with Rival() as rival, Rival() as second:
        rival.begin()
        first = rival.run(hold, "a")
        asking = second.start(hold, "b")
        wait_until_blocked()
        rival.commit()

        assert (first, asking.result(TIMEOUT)) == (True, False)
