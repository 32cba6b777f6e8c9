"""What a filter or a search in the job list looks through: the newest jobs, and older ones that an index finds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client

from django_jobs.models import Job, window
from django_jobs.states import JobState

from .rows import job_in
from .visitor import JOBS, act, rows_of, superuser, text_of

SEARCHED = 3
NOTICE = "The newest 3 jobs are searched, and of older ones up to 10,000 each of those that are ready"


@pytest.fixture(autouse=True)
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "MOST_SEARCHED", SEARCHED)


@pytest.fixture
def browser(db: None) -> Client:
    return superuser()


def stored(**columns: Any) -> Job:
    """Return a job in a state that has no index, unless the columns name another."""
    return Job.objects.create(**{"task_path": "tests.tasks.noop", "state": JobState.WAITING, **columns})


def newer(count: int = SEARCHED) -> list[str]:
    """Store as many jobs as are searched, and return their ids as a list shows them."""
    return [str(stored(queue_name="newer").pk) for _ in range(count)][::-1]


def listed(response: Any) -> list[str]:
    return [cells[0] for cells in rows_of(response)]


def test_a_filter_searches_the_newest_jobs_and_says_so(browser: Client) -> None:
    stored()
    newest = newer()

    response = browser.get(JOBS, {"task_path": "tests.tasks.noop"})

    assert listed(response) == newest
    assert NOTICE in text_of(response)


def test_nothing_is_said_where_all_jobs_are_searched(browser: Client) -> None:
    newer()

    response = browser.get(JOBS, {"task_path": "tests.tasks.noop"})

    assert "are searched" not in text_of(response)


def test_a_list_without_a_filter_shows_every_job(browser: Client) -> None:
    old = stored()
    newest = newer()

    response = browser.get(JOBS)

    assert listed(response) == [*newest, str(old.pk)]
    assert "are searched" not in text_of(response)


def test_the_link_leads_through_older_jobs_to_the_oldest_and_leaves_out_none(browser: Client) -> None:
    jobs = [str(stored().pk) for _ in range(2 * SEARCHED + 1)][::-1]
    seen: list[list[str]] = []
    address = "?task_path=tests.tasks.noop&p=1"

    while address:
        response = browser.get(f"{JOBS}{address}")
        seen.append(listed(response))
        shown = response.context["cl"]
        address = shown.older_link if shown.what_is_searched else ""
        assert not address or f'href="{address.replace("&", "&amp;")}"' in response.content.decode()

    assert seen == [jobs[:3], jobs[3:6], jobs[6:]]


def test_the_page_says_where_a_search_of_older_jobs_begins_and_leads_back(browser: Client) -> None:
    stored()
    newest = newer(SEARCHED + 1)[0]

    response = browser.get(JOBS, {"task_path": "tests.tasks.noop", "before": newest})

    assert f"The newest 3 jobs before job {newest} are searched" in text_of(response)
    assert f"By older than All Job {newest}" in text_of(response)


@pytest.mark.parametrize("state", [JobState.READY, JobState.SCHEDULED, JobState.RUNNING, JobState.FAILED])
def test_an_old_job_is_found_by_the_index_of_its_state(browser: Client, state: JobState) -> None:
    old = job_in(state)
    stored(task_path=old.task_path)
    newer()

    response = browser.get(JOBS, {"queue_name": old.queue_name, "task_path": old.task_path})

    assert listed(response) == [str(old.pk)]


@pytest.mark.django_db
def test_of_many_old_finished_jobs_that_which_finished_last_is_found() -> None:
    times = [datetime(2020, 1, day, tzinfo=UTC) for day in (1, 3, 2)]
    jobs = [stored(state=JobState.FAILED, finished_at=time) for time in times]

    found = list(window.found_by_indexes(1))

    assert [jobs[1].pk] in found
    assert sum(len(pks) for pks in found) == 1


def test_a_job_that_waits_is_found_by_its_unique_key_however_old_it_is(browser: Client) -> None:
    old = stored(unique_key="daily-report")
    newer()

    response = browser.get(JOBS, {"q": " daily-report "})

    assert listed(response) == [str(old.pk)]


def test_a_job_is_found_by_its_id_however_old_it_is(browser: Client) -> None:
    old = stored()
    newer()

    response = browser.get(JOBS, {"q": str(old.pk)})

    assert listed(response) == [str(old.pk)]
    assert "are searched" not in text_of(response)


def test_an_action_on_all_that_match_moves_what_the_list_shows(browser: Client) -> None:
    ready, left = stored(state=JobState.READY), stored()
    waiting = [stored() for _ in range(SEARCHED)]

    messages = act(browser, "cancel", ready, at=f"{JOBS}?task_path=tests.tasks.noop", select_across="1")

    assert messages == ["4 jobs were cancelled."]
    assert set(Job.objects.filter(state=JobState.CANCELLED)) == {ready, *waiting}
    assert Job.objects.get(pk=left.pk).state == JobState.WAITING
