"""Queues in the admin: their settings, tags and problems, all at once, and what becomes of the jobs of a deleted one."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import JSONField, Value
from django.test import Client

from django_jobs import notifications
from django_jobs.admin import queue as queue_admin
from django_jobs.models import Job, Queue, Worker
from django_jobs.states import JobState

from .exchanges import enqueue
from .rows import job_in, start_worker
from .visitor import QUEUES, act, log, messages_of, rows_of, staff, superuser, text_of

# What the page sends for each setting, and what is stored.
FORM = {
    "tags": "gpu\n  zone=.*  \n\n",
    "concurrency": "2",
    "max_running": "3",
    "rate_limit": "4",
    "rate_window": "60",
    "executor": "thread",
    "timeout": "5.5",
    "poll_interval": "0.25",
    "raise_after": "3600",
    "raise_by": "6",
    "keep_succeeded": "01:00:00",
    "keep_failed": "2 00:00:00",
}
STORED = {
    "tags": ["gpu", "zone=.*"],
    "concurrency": 2,
    "max_running": 3,
    "rate_limit": 4,
    "rate_window": 60.0,
    "executor": "thread",
    "timeout": 5.5,
    "poll_interval": 0.25,
    "raise_after": 3600.0,
    "raise_by": 6,
    "keep_succeeded": timedelta(hours=1),
    "keep_failed": timedelta(days=2),
}


@pytest.fixture
def browser(db: None) -> Client:
    return superuser()


@pytest.fixture
def mail(db: None) -> Queue:
    return Queue.objects.declare("mail")


def listed(browser: Client) -> dict[str, dict[str, str]]:
    """Return the cells of each queue by its name and theirs."""
    names = ("name", "status", "ready", "oldest_wait", "running", "served_by", "tags")
    rows = [dict(zip(names, cells, strict=True)) for cells in rows_of(browser.get(QUEUES))]
    return {row["name"]: row for row in rows}


def page(queue: Queue) -> str:
    return f"{QUEUES}{queue.pk}/change/"


def settings_of(name: str = "mail") -> dict[str, Any]:
    return Queue.objects.values(*STORED).get(name=name)


def values_on(response: Any) -> dict[str, Any]:
    """Return what the fields of the form hold, as a browser sends them back."""
    form = response.context["adminform"].form
    return {name: "" if form[name].value() is None else form[name].value() for name in form.fields}


# Settings


def test_a_queue_is_declared_with_every_setting(browser: Client) -> None:
    browser.post(f"{QUEUES}add/", {"name": "mail", **FORM})

    assert settings_of() == STORED
    assert len(log()) == 1


def test_every_setting_is_changed_and_logged(browser: Client, mail: Queue) -> None:
    browser.post(page(mail), FORM)

    assert settings_of() == STORED
    [(name, text)] = log()
    assert name == "mail"
    assert all(word in text.lower() for word in ("tags", "concurrency", "executor", "rate limit"))


def test_a_page_that_is_sent_back_as_it_is_changes_nothing(browser: Client, mail: Queue) -> None:
    browser.post(page(mail), FORM)
    sent_back = values_on(browser.get(page(mail)))

    browser.post(page(mail), sent_back)

    assert sent_back["tags"] == "gpu\nzone=.*"
    assert settings_of() == STORED
    assert log()[-1] == ("mail", "No fields changed.")


def test_the_settings_are_explained_in_groups(browser: Client, mail: Queue) -> None:
    text = text_of(browser.get(page(mail)))

    for words in (
        "Workers",
        "Limits",
        "Finished jobs",
        "one on each line",
        "all workers together",
        "in each rate window",
    ):
        assert words in text


def test_the_new_queue_of_an_empty_form_is_for_every_worker(browser: Client) -> None:
    shown = values_on(browser.get(f"{QUEUES}add/"))

    browser.post(f"{QUEUES}add/", shown | {"name": "mail"})

    assert settings_of()["tags"] == ["*"]


def test_without_a_line_no_worker_serves_the_queue(browser: Client, mail: Queue) -> None:
    start_worker()

    browser.post(page(mail), {"tags": ""})

    assert settings_of()["tags"] == []
    assert (listed(browser)["mail"]["tags"], listed(browser)["mail"]["served_by"]) == ("no worker", "no live worker")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"tags": "gpu\nhost=("}, "tags has the expression 'host=(', which is no regular expression: missing )"),
        ({"tags": "x" * 501}, "tags has an expression of 501 characters"),
        (
            {"concurrency": "0"},
            "concurrency must be at least 1, not 0. So that none of its jobs starts, pause the queue.",
        ),
        ({"max_running": "0"}, "pause the queue"),
        ({"concurrency": "-1"}, "greater than or equal to 0"),
        ({"rate_limit": "5"}, "rate_window is missing: rate_limit goes with it."),
        ({"rate_window": "5"}, "rate_limit is missing: rate_window goes with it."),
        ({"rate_limit": "5", "rate_window": "0"}, "rate_window must be between"),
        ({"rate_limit": "5", "rate_window": "nan"}, "Enter a number."),
        ({"executor": "process"}, "Select a valid choice."),
        ({"timeout": "-1"}, "timeout must be between"),
        ({"raise_by": "0"}, "raise_by must be a whole number between 1 and 200"),
        ({"keep_failed": "-1 00:00:00"}, "keep_failed must be between 0 s"),
    ],
)
def test_what_cannot_work_is_refused_beside_its_field(
    browser: Client, mail: Queue, fields: dict[str, str], problem: str
) -> None:
    before = settings_of()

    response = browser.post(page(mail), {"tags": "*", "concurrency": "5", **fields})

    assert problem in text_of(response)
    assert settings_of() == before
    assert log() == []


def test_who_may_only_look_sees_the_settings_and_changes_none(browser: Client, mail: Queue) -> None:
    browser.post(page(mail), FORM)
    onlooker = staff("view_queue")

    text = text_of(onlooker.get(page(mail)))
    response = onlooker.post(page(mail), {"tags": "*"})

    assert "zone=.*" in text
    assert response.status_code == 403
    assert settings_of() == STORED


def test_workers_are_told_of_a_change(browser: Client, mail: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    hints: list[str] = []
    monkeypatch.setattr(notifications, "hint", lambda kind, name="": hints.append(kind))

    browser.post(page(mail), FORM)

    assert hints == ["queues"]


# Tags, limits and problems in the list


def test_the_list_shows_tags_and_which_live_workers_match(browser: Client) -> None:
    for name, tags in {"any": ["*"], "gpu": ["gpu", "tpu"], "host": ["hostname=web-.*"], "none": ["fpga"]}.items():
        Queue.objects.declare(name, tags=tags)
    start_worker("w1", tags=["*", "gpu"])
    start_worker("w2", tags=["*", "hostname=web-7"])
    start_worker("w3", queues=["any"], tags=["*", "gpu"])

    shown = {name: (row["tags"], row["served_by"]) for name, row in listed(browser).items()}

    assert shown == {
        "any": ("*", "w1, w2, w3"),
        "gpu": ("gpu tpu", "w1"),
        "host": ("hostname=web-.*", "w2"),
        "none": ("fpga", "no live worker"),
    }


def test_ready_jobs_that_no_live_workers_tags_match_are_a_problem(browser: Client, mail: Queue) -> None:
    start_worker(tags=["*", "cpu"])
    enqueue(1, queue_name="mail")
    before = listed(browser)["mail"]["status"]

    Queue.objects.declare("mail", upsert=True, tags=["gpu"])

    assert before == "open"
    assert listed(browser)["mail"]["status"] == "problem Jobs are ready, and no live worker serves this queue."


@pytest.mark.parametrize("tags", [Value(None, JSONField()), "gpu", 5, {"gpu": 1}, [5, None, ["gpu"]]])
def test_a_worker_whose_row_has_other_things_than_tags_spoils_nothing(browser: Client, tags: Any) -> None:
    Queue.objects.declare("any")
    Queue.objects.declare("gpu", tags=["gpu"])
    start_worker("w1")
    Worker.objects.update(tags=tags)

    shown = {name: row["served_by"] for name, row in listed(browser).items()}

    assert shown == {"any": "w1", "gpu": "no live worker"}


def test_the_list_shows_how_many_run_of_how_many(browser: Client) -> None:
    Queue.objects.declare("mail", max_running=5)
    job_in(JobState.RUNNING, queue_name="mail")

    assert listed(browser)["mail"]["running"] == "1 / 5"


@pytest.mark.parametrize("tags", ['["("]', '"gpu"', "null", '{"a": [1]}', "[" + "9" * 5000 + "]"])
def test_a_row_that_cannot_work_is_shown_as_a_problem_and_can_be_mended(
    browser: Client, mail: Queue, tags: str
) -> None:
    Queue.objects.declare("letters")
    start_worker()
    cast = "::jsonb" if connection.features.has_native_json_field else ""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE django_jobs_queue SET tags = %s{cast} WHERE name = 'mail'", [tags])

    row, text = listed(browser)["mail"], text_of(browser.get(page(mail)))
    others = listed(browser)["letters"]
    browser.post(page(mail), {"tags": "*"})

    assert row["status"].startswith("problem No worker takes its jobs: tags ")
    assert "No worker takes its jobs: tags " in text
    assert (row["served_by"], others["served_by"], others["status"]) == ("no live worker", "w1", "open")
    assert listed(browser)["mail"]["status"] == "open"


# All at once


def test_all_queues_are_paused_after_a_question(browser: Client, mail: Queue) -> None:
    Queue.objects.declare("letters")
    links = re.findall(r'href="([^"]*/all/\w+/)"', browser.get(QUEUES).content.decode())
    asked = browser.get(f"{QUEUES}all/pause/")
    before = Queue.objects.paused().count()

    told = messages_of(browser.post(f"{QUEUES}all/pause/", {"post": "yes", "reason": "Release"}, follow=True))

    assert links == [f"{QUEUES}all/pause/", f"{QUEUES}all/resume/"]
    assert "Pause 2 queues" in text_of(asked)
    assert before == 0
    assert set(Queue.objects.paused().values_list("name", "paused_reason")) == {
        ("letters", "Release"),
        ("mail", "Release"),
    }
    assert told == ["2 queues were changed: Paused: Release"]
    assert sorted(log()) == [("letters", "Paused: Release"), ("mail", "Paused: Release")]


def test_all_queues_are_resumed_after_a_question(browser: Client, mail: Queue) -> None:
    Queue.objects.declare("letters")
    Queue.objects.pause("mail", "Strike")

    asked = text_of(browser.get(f"{QUEUES}all/resume/"))
    before = Queue.objects.paused().count()
    told = messages_of(browser.post(f"{QUEUES}all/resume/", {"post": "yes"}, follow=True))

    assert "Workers take jobs of these queues again. mail " in asked
    assert before == 1
    assert not Queue.objects.paused().exists()
    assert told[0] == "1 queue was changed: Resumed."
    assert log() == [("mail", "Resumed.")]


def test_there_is_no_other_page_for_all(browser: Client) -> None:
    assert browser.get(f"{QUEUES}all/delete/").status_code == 404


@pytest.mark.parametrize("name", ["pause", "resume"])
def test_who_may_only_look_does_nothing_to_all(mail: Queue, name: str) -> None:
    browser = staff("view_queue")

    response = browser.post(f"{QUEUES}all/{name}/", {"post": "yes"})

    assert response.status_code == 403
    assert not Queue.objects.paused().exists()
    assert "/all/" not in browser.get(QUEUES).content.decode()


# Deleting

CHOICES = {
    "keep": ({"failed": 1, "running": 1, "ready": 1}, "its jobs were kept"),
    "cancel": (
        {"failed": 1, "running": 1, "cancelled": 1},
        "its jobs were cancelled (1 cancelled, 1 asked to stop, 0 deleted)",
    ),
    "delete": ({"running": 1}, "its jobs were deleted (1 cancelled, 1 asked to stop, 2 deleted)"),
}


def fill(name: str = "mail") -> None:
    for state in (JobState.RUNNING, JobState.FAILED, JobState.READY):
        job_in(state, queue_name=name)


def states(name: str = "mail") -> dict[str, int]:
    return dict(Counter(Job.objects.filter(queue_name=name).values_list("state", flat=True)))


@pytest.mark.parametrize("is_bulk", [False, True])
def test_a_deletion_asks_first_what_becomes_of_the_jobs(browser: Client, mail: Queue, is_bulk: bool) -> None:
    if is_bulk:
        response = browser.post(QUEUES, {"action": "delete_selected", "_selected_action": mail.pk})
    else:
        response = browser.get(f"{QUEUES}{mail.pk}/delete/")

    text = text_of(response)
    assert "Delete 1 queue?" in text
    assert re.findall(r'name="jobs" value="(\w+)"', response.content.decode()) == ["keep", "cancel", "delete"]
    assert "is declared again when a worker starts" in text
    assert Queue.objects.exists()


@pytest.mark.parametrize("jobs", CHOICES)
def test_a_queue_is_deleted_with_what_was_chosen_for_its_jobs(browser: Client, mail: Queue, jobs: str) -> None:
    fill()
    left, words = CHOICES[jobs]

    told = messages_of(browser.post(f"{QUEUES}{mail.pk}/delete/", {"post": "yes", "jobs": jobs}, follow=True))

    assert not Queue.objects.exists()
    assert states() == left
    assert log() == [("mail", words)]
    assert told == [f"The queue “mail” was deleted; {words}."]


@pytest.mark.parametrize("jobs", CHOICES)
def test_many_queues_are_deleted_with_what_was_chosen(browser: Client, mail: Queue, jobs: str) -> None:
    letters, other = Queue.objects.declare("letters"), Queue.objects.declare("other")
    for queue in (mail, letters, other):
        fill(queue.name)
    left, words = CHOICES[jobs]

    act(browser, "delete_selected", mail, letters, at=QUEUES, post="yes", jobs=jobs)

    assert list(Queue.objects.values_list("name", flat=True)) == ["other"]
    assert [states("mail"), states("letters"), states("other")] == [left, left, CHOICES["keep"][0]]
    assert sorted(log()) == [("letters", words), ("mail", words)]


def test_another_choice_deletes_nothing(browser: Client, mail: Queue) -> None:
    response = browser.post(f"{QUEUES}{mail.pk}/delete/", {"post": "yes", "jobs": "drop"})

    assert "Select a valid choice" in text_of(response)
    assert Queue.objects.exists()


@pytest.mark.parametrize(
    ("permissions", "offered"),
    [
        (["delete_queue"], ["keep"]),
        (["delete_queue", "delete_job"], ["keep"]),
        (["delete_queue", "change_job"], ["keep", "cancel"]),
        (["delete_queue", "change_job", "delete_job"], ["keep", "cancel", "delete"]),
    ],
)
def test_jobs_are_touched_only_by_those_who_may(mail: Queue, permissions: list[str], offered: list[str]) -> None:
    fill()
    browser = staff("view_queue", *permissions)
    address = f"{QUEUES}{mail.pk}/delete/"

    shown = re.findall(r'name="jobs" value="(\w+)"', browser.get(address).content.decode())
    for jobs in {"cancel", "delete"} - set(offered):
        browser.post(address, {"post": "yes", "jobs": jobs})

    assert shown == offered
    assert Queue.objects.exists()
    assert states() == CHOICES["keep"][0]


def test_who_may_not_delete_queues_deletes_none(mail: Queue) -> None:
    browser = staff("view_queue", "change_queue", "change_job", "delete_job")

    act(browser, "delete_selected", mail, at=QUEUES, post="yes", jobs="delete")
    response = browser.post(f"{QUEUES}{mail.pk}/delete/", {"post": "yes", "jobs": "delete"})

    assert response.status_code == 403
    assert Queue.objects.exists()


def test_a_queue_with_very_many_jobs_takes_several_goes(
    browser: Client, mail: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_admin, "MOST_MOVED", 2)
    monkeypatch.setattr("django_jobs.models.queue_removal.PRUNE_BATCH", 2)
    enqueue(3, queue_name="mail")
    address = f"{QUEUES}{mail.pk}/delete/"

    told = [messages_of(browser.post(address, {"post": "yes", "jobs": "cancel"}, follow=True)) for _ in range(2)]

    assert "has more jobs and is still there" in told[0][0]
    assert "was deleted" in told[1][0]
    assert states() == {"cancelled": 3}


def test_a_queue_that_is_gone_is_not_deleted_again(browser: Client, mail: Queue) -> None:
    address = f"{QUEUES}{mail.pk}/delete/"
    mail.delete()

    told = messages_of(browser.post(address, {"post": "yes"}, follow=True))

    assert told == ["It does not exist any more: it has been deleted."]
