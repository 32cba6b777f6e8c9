"""Limits in the admin: who has the slots of a key, who waits, and what an operator says instead of the tasks."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from django_jobs.models import Job, Limit
from django_jobs.states import JobState

from . import tasks
from .exchanges import states
from .visitor import rows_of, staff, superuser, text_of

pytestmark = pytest.mark.django_db

LIMITS = reverse("admin:django_jobs_limit_changelist")
BLOCKED, READY = JobState.BLOCKED, JobState.READY


@pytest.fixture
def browser() -> Client:
    return superuser()


def enqueue(count: int, key: str = "account 1", limit: int = 2) -> list[int]:
    keyed = tasks.noop.using(concurrency_key=key, concurrency_limit=limit)
    return [int(keyed.enqueue().id) for _ in range(count)]


def page_of(key: str) -> str:
    return reverse("admin:django_jobs_limit_change", args=[key])


def test_the_list_shows_the_slots_of_each_key_and_how_many_jobs_wait(browser: Client) -> None:
    enqueue(5)
    enqueue(1, "account 2", 1)

    listed = rows_of(browser.get(LIMITS))

    assert [row[:4] for row in listed] == [["account 1", "2 / 2", "3", "2"], ["account 2", "1 / 1", "0", "1"]]


def test_an_override_admits_jobs_at_once(browser: Client) -> None:
    ids = enqueue(4)

    browser.post(page_of("account 1"), {"override": "3"})

    assert states(ids) == [READY, READY, READY, BLOCKED]


def test_a_key_that_is_stopped_takes_the_slots_of_ready_jobs_and_gives_them_back(browser: Client) -> None:
    ids = enqueue(2)

    browser.post(page_of("account 1"), {"override": "0"})
    stopped = states(ids)
    browser.post(page_of("account 1"), {"override": ""})

    assert (stopped, states(ids)) == ([BLOCKED, BLOCKED], [READY, READY])


def test_a_key_can_be_limited_before_its_first_job_comes(browser: Client) -> None:
    browser.post(reverse("admin:django_jobs_limit_add"), {"key": "account 1", "override": "1"})

    assert states(enqueue(2)) == [READY, BLOCKED]


@pytest.mark.parametrize(
    ("override", "told"), [("-1", "greater than or equal to 0"), ("2147483648", "less than or equal to 2147483647")]
)
def test_an_override_that_cannot_be_one_is_refused(browser: Client, override: str, told: str) -> None:
    enqueue(1)

    answer = browser.post(page_of("account 1"), {"override": override})

    assert told in text_of(answer)
    assert Limit.objects.get().override is None


def test_the_page_of_a_job_leads_to_its_key_and_that_to_its_jobs(browser: Client) -> None:
    ids = enqueue(3)

    page = browser.get(reverse("admin:django_jobs_job_change", args=[ids[0]]))
    blocked = browser.get(
        reverse("admin:django_jobs_job_changelist"), {"concurrency_key": "account 1", "state__exact": "blocked"}
    )

    assert f"{LIMITS}?q=account+1" in page.content.decode()
    assert [row[0] for row in rows_of(blocked)] == [str(ids[2])]


def test_who_may_only_view_changes_nothing() -> None:
    ids = enqueue(3)
    viewer = staff("view_limit")

    answer = viewer.post(page_of("account 1"), {"override": "3"})

    assert answer.status_code == 403
    assert states(ids) == [READY, READY, BLOCKED]


def test_the_list_costs_the_same_few_queries_for_any_number_of_keys(
    browser: Client, django_assert_max_num_queries: object
) -> None:
    for number in range(20):
        enqueue(1, f"account {number}")

    with django_assert_max_num_queries(8):  # type: ignore[operator]
        browser.get(LIMITS)

    assert Job.objects.count() == 20
