"""Who may see and do what in the admin."""

from __future__ import annotations

from typing import Any

import pytest

from django_jobs.models import Job, Queue, Worker
from django_jobs.states import JobState

from .rows import job_in, start_worker, state_of
from .visitor import JOBS, QUEUES, WORKERS, act, buttons_of, log, staff, superuser

ACTIONS = ("retry", "cancel", "run_now", "delete_selected")


def offered(response: Any) -> set[str]:
    """Return the names of the actions that a list offers."""
    form = response.context["action_form"]
    return {name for name, _ in form.fields["action"].choices if name} if form else set()


def queue_page(queue: Queue) -> str:
    return f"{QUEUES}{queue.pk}/change/"


# Jobs


@pytest.mark.django_db
@pytest.mark.parametrize("address", [JOBS, QUEUES, WORKERS])
def test_who_has_no_permission_sees_nothing(address: str) -> None:
    browser = staff()

    assert browser.get(address).status_code == 403


@pytest.mark.django_db
@pytest.mark.parametrize("state", [JobState.FAILED, JobState.SCHEDULED, JobState.RUNNING])
def test_who_may_only_view_jobs_sees_them_and_no_buttons(state: JobState) -> None:
    job = job_in(state)
    browser = staff("view_job")

    jobs, page = browser.get(JOBS), browser.get(f"{JOBS}{job.pk}/change/")

    assert (jobs.status_code, page.status_code) == (200, 200)
    assert offered(jobs) == set()
    assert buttons_of(page) == []
    assert page.context["has_delete_permission"] is False


@pytest.mark.django_db
@pytest.mark.parametrize("name", ACTIONS)
def test_who_may_only_view_jobs_can_do_nothing(name: str) -> None:
    jobs = [job_in(state) for state in (JobState.FAILED, JobState.SCHEDULED, JobState.RUNNING)]
    before = list(Job.objects.order_by("pk").values())
    browser = staff("view_job")

    act(browser, name, *jobs, post="yes")
    codes = {browser.post(f"{JOBS}{job.pk}/act/{name}/").status_code for job in jobs}
    codes |= {browser.post(f"{JOBS}{job.pk}/delete/", {"post": "yes"}).status_code for job in jobs}

    assert codes <= {403, 404}
    assert list(Job.objects.order_by("pk").values()) == before
    assert log() == []


@pytest.mark.django_db
def test_who_may_change_jobs_can_act_on_them_and_not_delete_them() -> None:
    job = job_in(JobState.FAILED)
    browser = staff("change_job")

    told = act(browser, "retry", job)

    assert told == ["1 job is ready to run again."]
    assert offered(browser.get(JOBS)) == {"retry", "cancel", "run_now"}
    assert browser.post(f"{JOBS}{job.pk}/delete/", {"post": "yes"}).status_code == 403
    assert state_of(job) == JobState.READY


@pytest.mark.django_db
def test_who_may_view_and_delete_jobs_can_delete_them_and_nothing_else() -> None:
    job, other = job_in(JobState.FAILED), job_in(JobState.FAILED)
    browser = staff("view_job", "delete_job")

    act(browser, "retry", other)
    told = act(browser, "delete_selected", job, post="yes")

    assert told == ["1 job was deleted."]
    assert offered(browser.get(JOBS)) == {"delete_selected"}
    assert list(Job.objects.all()) == [other]
    assert state_of(other) == JobState.FAILED


@pytest.mark.django_db
def test_nobody_adds_or_edits_a_job_by_hand() -> None:
    job = job_in(JobState.FAILED)
    browser = superuser()

    codes = [
        browser.get(f"{JOBS}add/").status_code,
        browser.post(f"{JOBS}add/", {"task_path": "tests.tasks.noop"}).status_code,
        browser.post(f"{JOBS}{job.pk}/change/", {"state": "ready", "priority": 9}).status_code,
    ]

    assert codes == [403, 403, 403]
    assert list(Job.objects.all()) == [job]
    assert state_of(job) == JobState.FAILED


# Queues


@pytest.mark.django_db
def test_who_may_only_view_queues_can_do_nothing() -> None:
    queue = Queue.objects.declare("mail")
    browser = staff("view_queue")

    act(browser, "pause", queue, at=QUEUES, post="yes")
    codes = [
        browser.post(f"{QUEUES}{queue.pk}/act/pause/", {"post": "yes"}).status_code,
        browser.post(queue_page(queue), {"keep_failed": "1 00:00:00"}).status_code,
        browser.post(f"{QUEUES}add/", {"name": "new"}).status_code,
        browser.post(f"{QUEUES}{queue.pk}/delete/", {"post": "yes"}).status_code,
    ]

    assert codes == [403, 403, 403, 403]
    assert buttons_of(browser.get(queue_page(queue))) == []
    assert list(Queue.objects.values_list("name", "paused_at", "keep_failed")) == [("mail", None, None)]


@pytest.mark.django_db
def test_who_may_change_queues_can_pause_them() -> None:
    queue = Queue.objects.declare("mail")
    browser = staff("change_queue")

    act(browser, "pause", queue, at=QUEUES, post="yes")

    assert Queue.objects.paused().exists()


# Workers


@pytest.mark.django_db
def test_nobody_changes_workers_by_hand() -> None:
    worker = Worker.objects.get(worker_id=start_worker())
    page = f"{WORKERS}{worker.pk}/"
    browser = superuser()

    codes = [
        browser.get(f"{page}change/").status_code,
        browser.post(f"{page}change/", {"state": "stopped"}).status_code,
        browser.post(f"{page}delete/", {"post": "yes"}).status_code,
        browser.get(f"{WORKERS}add/").status_code,
    ]

    assert codes == [200, 403, 403, 403]
    assert offered(browser.get(WORKERS)) == set()
    assert list(Worker.objects.all()) == [worker]
