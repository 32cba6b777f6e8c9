"""The admin where the jobs tables are in another database than users and the admin's log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.db import connections
from django.test import Client

from django_jobs.models import Job, Queue
from django_jobs.states import JobState

from . import tasks
from .rows import claim, job_in, outcome, start_worker, state_of, write
from .visitor import JOBS, QUEUES, WORKERS, act, log, press, superuser, text_of

ROUTER = "django_jobs.models.database.JobsRouter"


@pytest.fixture(params=[[ROUTER], []], ids=["with the router", "without a router"])
def jobs_database(request: pytest.FixtureRequest, db: None, settings: Any, tmp_path: Path) -> Iterator[str]:
    """Keep the jobs tables in a database of their own for one test, and return its alias."""
    connections.databases["jobs"] = connections["default"].settings_dict | {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": tmp_path / "jobs.sqlite3",
        "OPTIONS": {},
    }
    # By hand: the test framework lets no test open a connection that it does not know.
    connections["jobs"].connect()
    call_command("migrate", "django_jobs", database="jobs", verbosity=0)
    settings.DJANGO_JOBS = {"DATABASE": "jobs"}
    settings.DATABASE_ROUTERS = request.param
    yield "jobs"
    connections["jobs"].close()
    del connections["jobs"]
    del connections.databases["jobs"]


@pytest.fixture
def browser(jobs_database: str) -> Client:
    return superuser()


def failed_job() -> Job:
    return job_in(JobState.FAILED)


def test_every_page_reads_the_jobs_database(browser: Client) -> None:
    job = failed_job()
    queue = Queue.objects.declare("mail")

    for address in (JOBS, f"{JOBS}{job.pk}/change/", QUEUES, f"{QUEUES}{queue.pk}/change/", WORKERS):
        assert text_of(browser.get(address))
    assert str(job.pk) in text_of(browser.get(JOBS))


def test_actions_write_there_and_the_log_stays_where_it_is(browser: Client) -> None:
    retried, deleted = failed_job(), failed_job()

    press(browser, "retry", retried)
    act(browser, "delete_selected", deleted, post="yes")

    assert list(Job.objects.using("jobs")) == [retried]
    assert state_of(retried) == JobState.READY
    assert len(log()) == LogEntry.objects.using("default").count() == 2


def test_queues_are_declared_changed_paused_and_deleted_there(browser: Client) -> None:
    browser.post(f"{QUEUES}add/", {"name": "mail"})
    queue = Queue.objects.using("jobs").get()

    browser.post(f"{QUEUES}{queue.pk}/change/", {"keep_failed": "1 00:00:00"})
    press(browser, "pause", queue, at=QUEUES, post="yes")
    changed = Queue.objects.using("jobs").get()
    browser.post(f"{QUEUES}{queue.pk}/delete/", {"post": "yes"})

    assert changed.keep_failed is not None
    assert changed.paused_at is not None
    assert not Queue.objects.using("jobs").exists()
    assert not Queue.objects.using("default").exists()


def test_an_attempt_is_read_there(browser: Client) -> None:
    start_worker()
    tasks.noop.enqueue()
    job = claim()[0]
    write(outcome(job, "fail"))

    assert "Attempt 1 failed" in text_of(browser.get(f"{JOBS}{job.id}/change/"))
