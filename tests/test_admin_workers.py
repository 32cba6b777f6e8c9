"""Workers in the admin: whether they live, what they run, how their loops do."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_jobs.models import Worker
from django_jobs.models.rescue import rescue_lost
from django_jobs.states import WorkerState

from .rows import LEASE, WORKER, claimed, end_lease, start_worker
from .visitor import WORKERS, rows_of, superuser, text_of

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def browser(db: None) -> Client:
    return superuser()


def listed(browser: Client) -> dict[str, list[str]]:
    """Return the cells of each worker by its id: state, kind, heartbeat, queues, priorities, active, processed, failed, tags."""
    return {cells[0]: cells[1:] for cells in rows_of(browser.get(WORKERS))}


def page_of(browser: Client, worker_id: str = WORKER) -> str:
    worker = Worker.objects.get(worker_id=worker_id)
    return text_of(browser.get(f"{WORKERS}{worker.pk}/change/"))


# The list


def test_the_list_shows_what_a_worker_serves_and_has_done(browser: Client) -> None:
    start_worker(queues=["mail", "!slow"], tags=["*", "gpu"])
    Worker.objects.report(WORKER, state=WorkerState.RUNNING, processed=12, failed=3, active=2)

    state, kind, heartbeat, *others = listed(browser)[WORKER]

    assert (state, kind) == ("running", "worker")
    assert re.fullmatch(r"\d+(\.\d)? s ago", heartbeat)
    assert others == ["mail !slow", "all", "2", "12", "3", "* gpu"]


def test_a_worker_of_some_priorities_says_which(browser: Client) -> None:
    start_worker(min_priority=10, max_priority=100)

    assert "10 to 100" in listed(browser)[WORKER]
    assert "10 to 100" in page_of(browser)


def test_a_worker_whose_lease_has_ended_is_marked_though_its_row_says_running(browser: Client) -> None:
    start_worker()
    Worker.objects.report(WORKER, state=WorkerState.RUNNING)
    end_lease()

    assert listed(browser)[WORKER][0] == "running lease ended"
    assert "ended 1." in page_of(browser)


def test_a_lost_worker_is_shown_as_lost(browser: Client) -> None:
    start_worker()
    end_lease()
    rescue_lost()

    assert listed(browser)[WORKER][0] == "lost"


def test_a_stopped_worker_has_no_lease_that_could_end(browser: Client) -> None:
    start_worker()
    Worker.objects.mark_stopped(WORKER)

    assert listed(browser)[WORKER][0] == "stopped"


def test_the_age_of_a_heartbeat_is_told_by_the_clock_of_the_database(browser: Client) -> None:
    start_worker()
    worker = Worker.objects.get()
    Worker.objects.filter(pk=worker.pk).update(last_seen=worker.last_seen - timedelta(hours=2, minutes=5, seconds=30))

    assert listed(browser)[WORKER][2] == "2 h 5 min ago"


def test_the_leader_is_marked(browser: Client) -> None:
    start_worker(kind="supervisor")
    Worker.objects.report(WORKER, is_leader=True)

    assert listed(browser)[WORKER][1] == "supervisor leader"


def test_more_workers_take_no_more_queries(browser: Client) -> None:
    start_worker()
    with CaptureQueriesContext(connection) as few:
        browser.get(WORKERS)
    for number in range(5):
        start_worker(f"worker-{number}")

    with CaptureQueriesContext(connection) as many:
        browser.get(WORKERS)

    assert len(many) == len(few)


# The page


def test_the_page_lists_the_running_jobs_with_links(browser: Client) -> None:
    start_worker()
    jobs = [claimed(), claimed()]
    worker = Worker.objects.get()

    response = browser.get(f"{WORKERS}{worker.pk}/change/")

    for job in jobs:
        assert f'<a href="/admin/django_jobs/job/{job.id}/change/">{job.id}</a>' in response.content.decode()


def test_the_page_says_that_no_job_runs(browser: Client) -> None:
    start_worker()

    text = page_of(browser)

    assert "No job runs here now." in text
    assert "None reported." in text


def test_the_page_shows_the_health_of_the_loops(browser: Client) -> None:
    start_worker()
    loops = {
        "exchange": {"alive": True, "seconds_since_pass": 0.25, "last_error": ""},
        "heartbeat": {"alive": True, "seconds_since_pass": 3, "last_error": "OperationalError: gone"},
        "threads": {"alive": False},
    }
    Worker.objects.report(WORKER, loops=loops)

    text = page_of(browser)

    assert "exchange alive 0.2 s" in text
    assert "heartbeat failing 3.0 s OperationalError: gone" in text
    assert "threads dead -" in text


def test_the_page_shows_the_process(browser: Client) -> None:
    start_worker(hostname="web-1", pid=4711, supervisor="web-1-4700", versions={"python": "3.13.0"}, concurrency=10)
    Worker.objects.report(WORKER, rss=128 * 2**20)

    text = page_of(browser)

    for expected in ("web-1", "4711", "web-1-4700", "python 3.13.0", "128 MiB", "ends in "):
        assert expected in text


@pytest.mark.parametrize(
    "odd",
    [
        {"queues": None, "tags": "gpu", "versions": [], "loops": []},
        {"queues": {"a": 1}, "tags": [None, 1, ["x"]], "versions": {"a": None}, "loops": {"exchange": None}},
        {"queues": "mail", "loops": {"exchange": {"seconds_since_pass": "long", "last_error": 5}}},
    ],
)
def test_a_row_of_another_version_is_shown_all_the_same(browser: Client, odd: dict[str, Any]) -> None:
    start_worker()
    columns = {name: value for name, value in odd.items() if value is not None}
    Worker.objects.filter(worker_id=WORKER).update(**columns)

    assert WORKER in listed(browser)
    assert page_of(browser)


def test_what_a_worker_says_is_shown_as_text(browser: Client) -> None:
    start_worker(SCRIPT, LEASE, hostname=SCRIPT, queues=[SCRIPT], tags=[SCRIPT], versions={SCRIPT: SCRIPT})
    Worker.objects.report(SCRIPT, loops={SCRIPT: {"last_error": SCRIPT}})
    worker = Worker.objects.get()

    pages = [browser.get(address).content.decode() for address in (WORKERS, f"{WORKERS}{worker.pk}/change/")]

    for content in pages:
        assert SCRIPT not in content
        assert "&lt;script&gt;alert(1)" in content
