"""Queues in the admin: what waits and who takes it, problems, pause and resume, settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.signals import pre_save
from django.dispatch import Signal
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_jobs.models import Job, Queue, Worker, backlog
from django_jobs.states import JobState, WorkerState

from . import tasks
from .rows import claim, end_lease, start_worker
from .visitor import QUEUES, act, buttons_of, log, messages_of, press, rows_of, superuser, text_of

STUCK = "problem Jobs are ready, and no live worker serves this queue."
A_YEAR = timedelta(days=365)


@contextmanager
def connected(signal: Signal, receiver: Callable[..., None], sender: type) -> Iterator[None]:
    signal.connect(receiver, sender=sender)
    yield
    signal.disconnect(receiver, sender=sender)


@pytest.fixture
def browser(db: None) -> Client:
    return superuser()


@pytest.fixture
def mail(db: None) -> Queue:
    return Queue.objects.declare("mail")


def listed(browser: Client) -> dict[str, list[str]]:
    """Return the cells of each queue by name: status, ready, oldest wait, running, served by, tags."""
    return {cells[0]: cells[1:] for cells in rows_of(browser.get(QUEUES))}


def page(queue: Queue) -> str:
    return f"{QUEUES}{queue.pk}/change/"


def saved(queue: Queue) -> Queue:
    return Queue.objects.get(pk=queue.pk)


# What waits and who takes it


def test_the_list_shows_what_waits_what_runs_and_who_serves(browser: Client, mail: Queue) -> None:
    now = timezone.now()
    worker_id = start_worker(queues=["mail"])
    tasks.send_mail.enqueue("ada@example.com")
    claim(worker_id, queues=["mail"])
    for minutes in (5, 90):
        Job.objects.create(task_path="t", queue_name="mail", enqueued_at=now - timedelta(minutes=minutes, seconds=30))

    status, ready, oldest_wait, running, served_by, tags = listed(browser)["mail"]

    assert (status, ready, running, served_by, tags) == ("open", "2", "1", worker_id, "*")
    assert oldest_wait == "1 h 30 min"


def test_a_job_waits_since_it_was_due(browser: Client, mail: Queue) -> None:
    now = timezone.now()
    due = now - timedelta(hours=3, minutes=20, seconds=30)
    Job.objects.create(task_path="t", queue_name="mail", enqueued_at=now - timedelta(days=3), run_after=due)

    assert listed(browser)["mail"][2] == "3 h 20 min"


def test_an_empty_queue_has_no_wait_and_no_problem(browser: Client, mail: Queue) -> None:
    assert listed(browser)["mail"] == ["open", "0", "-", "0", "no live worker", "*"]


def test_ready_jobs_are_counted_up_to_a_limit(browser: Client, mail: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MOST_COUNTED", 3)
    monkeypatch.setattr("django_jobs.admin.display.MOST_COUNTED", 3)
    tasks.send_mail.enqueue_many([(("a",), {})] * 5)

    assert listed(browser)["mail"][1] == "3+"


def test_more_queues_and_workers_take_no_more_queries(browser: Client, mail: Queue) -> None:
    start_worker()
    tasks.send_mail.enqueue("a")
    with CaptureQueriesContext(connection) as few:
        browser.get(QUEUES)
    for number in range(5):
        Queue.objects.declare(f"queue-{number}")
        start_worker(f"worker-{number}")
        tasks.noop.using(queue_name=f"queue-{number}").enqueue()

    with CaptureQueriesContext(connection) as many:
        browser.get(QUEUES)

    assert len(many) == len(few)


def test_only_some_of_many_workers_are_named(browser: Client, mail: Queue) -> None:
    for number in range(7):
        start_worker(f"worker-{number}")

    assert listed(browser)["mail"][4].endswith("worker-4 and 2 more")


# Problems


def test_a_queue_with_ready_jobs_and_no_worker_is_a_problem(browser: Client, mail: Queue) -> None:
    tasks.send_mail.enqueue("a")

    assert listed(browser)["mail"][0] == STUCK


@pytest.mark.parametrize("patterns", [["default"], ["*", "!mail"], ["letters*"]])
def test_a_worker_of_other_queues_does_not_help(browser: Client, mail: Queue, patterns: list[str]) -> None:
    start_worker(queues=patterns)
    tasks.send_mail.enqueue("a")

    assert listed(browser)["mail"][0] == STUCK


@pytest.mark.parametrize("patterns", [["mail"], ["*"], ["ma*", "!default"], []])
def test_a_worker_that_serves_the_queue_helps(browser: Client, mail: Queue, patterns: list[str]) -> None:
    start_worker(queues=patterns)
    tasks.send_mail.enqueue("a")

    assert listed(browser)["mail"][0] == "open"


def test_a_worker_whose_lease_has_ended_does_not_help(browser: Client, mail: Queue) -> None:
    start_worker()
    end_lease()
    tasks.send_mail.enqueue("a")

    assert listed(browser)["mail"][0] == STUCK


def test_a_supervisor_runs_no_jobs_itself(browser: Client, mail: Queue) -> None:
    start_worker(kind="supervisor", queues=["*"])
    tasks.send_mail.enqueue("a")

    assert listed(browser)["mail"][0] == STUCK


@pytest.mark.parametrize("state", [WorkerState.PAUSED, WorkerState.STOPPING])
def test_a_worker_that_takes_no_jobs_does_not_help(browser: Client, mail: Queue, state: WorkerState) -> None:
    Worker.objects.report(start_worker(), state=state)
    tasks.send_mail.enqueue("a")

    cells = listed(browser)["mail"]

    assert cells[0] == "problem Jobs are ready, and the workers that serve this queue are paused or stopping."
    assert cells[4] == f"w1 ({state.label})"


@pytest.mark.parametrize("priority", [-5, 15])
def test_jobs_of_priorities_that_no_worker_takes_are_a_problem(browser: Client, mail: Queue, priority: int) -> None:
    start_worker(min_priority=0, max_priority=10)
    tasks.send_mail.enqueue("a")
    before = listed(browser)["mail"][0]

    tasks.send_mail.using(priority=priority).enqueue("b")

    assert before == "open"
    assert listed(browser)["mail"][0] == "problem Jobs are ready of priorities that no live worker of this queue takes."


def test_workers_that_share_the_priorities_leave_no_problem(browser: Client, mail: Queue) -> None:
    start_worker("w1", max_priority=9)
    start_worker("w2", min_priority=10)
    for priority in (-100, 100):
        tasks.send_mail.using(priority=priority).enqueue("a")

    assert listed(browser)["mail"][0] == "open"


def test_a_problem_is_shown_on_the_page_of_the_queue_too(browser: Client, mail: Queue) -> None:
    tasks.send_mail.enqueue("a")

    assert STUCK in text_of(browser.get(page(mail)))


@pytest.mark.parametrize("name", ["a-first", "mail-2", "zz-last"])
def test_a_queue_with_ready_jobs_that_nobody_declared_is_named(browser: Client, mail: Queue, name: str) -> None:
    tasks.send_mail.enqueue("a")
    tasks.noop.using(queue_name=name).enqueue()

    text = text_of(browser.get(QUEUES))

    assert f"Jobs are ready in the queue “{name}”, which nobody has declared." in text


def test_declared_queues_are_not_called_undeclared(browser: Client, mail: Queue) -> None:
    tasks.send_mail.enqueue("a")
    tasks.noop.using(queue_name="later", run_after=A_YEAR).enqueue()

    assert "nobody has declared" not in text_of(browser.get(QUEUES))


# Pause and resume


def test_a_pause_asks_for_a_reason_first(browser: Client, mail: Queue) -> None:
    response = browser.post(QUEUES, {"action": "pause", "_selected_action": mail.pk})

    assert "Pause 1 queue" in text_of(response)
    assert "Reason:" in text_of(response)
    assert saved(mail).paused_at is None


def test_queues_are_paused_with_their_reason(browser: Client, mail: Queue) -> None:
    letters = Queue.objects.declare("letters")
    Queue.objects.pause("letters", "Strike")

    told = act(browser, "pause", mail, letters, at=QUEUES, post="yes", reason="The mail server moves")

    assert [saved(mail).paused_reason, saved(letters).paused_reason] == ["The mail server moves", "Strike"]
    assert told == [
        "1 queue was changed: Paused: The mail server moves",
        "1 queue was left as it was: it is in that state already.",
    ]
    assert log() == [("mail", "Paused: The mail server moves")]
    assert listed(browser)["mail"][0] == "paused The mail server moves"


def test_a_pause_may_end_by_itself(browser: Client, mail: Queue) -> None:
    press(browser, "pause", mail, at=QUEUES, post="yes", resume_at="2100-01-02T03:04")

    assert saved(mail).resume_at == datetime(2100, 1, 2, 3, 4, tzinfo=UTC)
    assert listed(browser)["mail"][0] == "paused until 2100-01-02 03:04:00"


def test_a_pause_cannot_end_in_the_past(browser: Client, mail: Queue) -> None:
    response = browser.post(f"{QUEUES}{mail.pk}/act/pause/", {"post": "yes", "resume_at": "2020-01-02T03:04"})

    assert "This time has passed" in text_of(response)
    assert saved(mail).paused_at is None


def test_the_end_of_a_pause_is_compared_with_the_clock_of_the_database(
    browser: Client, mail: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timezone, "now", lambda: datetime(2019, 1, 1, tzinfo=UTC))

    response = browser.post(f"{QUEUES}{mail.pk}/act/pause/", {"post": "yes", "resume_at": "2020-01-02T03:04"})

    assert "This time has passed" in text_of(response)


def test_a_pause_that_has_ended_is_shown_as_open(browser: Client, mail: Queue) -> None:
    Queue.objects.pause("mail", "Over", timezone.now() - timedelta(seconds=1))

    assert listed(browser)["mail"][0] == "open"


def test_a_paused_queue_is_resumed_by_its_button(browser: Client, mail: Queue) -> None:
    Queue.objects.pause("mail", "Strike")
    buttons = buttons_of(browser.get(page(mail)))

    told = press(browser, "resume", mail, at=QUEUES)

    assert buttons == ["Resume"]
    assert buttons_of(browser.get(page(mail))) == ["Pause"]
    assert told == ["1 queue was changed: Resumed."]
    assert log() == [("mail", "Resumed.")]
    assert (saved(mail).paused_at, saved(mail).paused_reason) == (None, "")


# Settings


def test_a_queue_is_declared_by_hand(browser: Client) -> None:
    told = messages_of(browser.post(f"{QUEUES}add/", {"name": "letters", "keep_failed": "3 00:00:00"}, follow=True))

    assert Queue.objects.get(name="letters").keep_failed == timedelta(days=3)
    assert "was added successfully" in told[0]
    assert len(log()) == 1


def test_how_long_finished_jobs_are_kept_is_changed(browser: Client, mail: Queue) -> None:
    browser.post(page(mail), {"keep_succeeded": "1 00:00:00", "keep_failed": "0"})

    assert (saved(mail).keep_succeeded, saved(mail).keep_failed) == (timedelta(days=1), timedelta())
    assert len(log()) == 1


@pytest.mark.parametrize("field", ["keep_succeeded", "keep_failed"])
def test_a_negative_time_to_keep_jobs_is_refused(browser: Client, mail: Queue, field: str) -> None:
    response = browser.post(page(mail), {field: "-1 00:00:00"})

    assert f"{field} must be between 0 s and" in text_of(response)
    assert getattr(saved(mail), field) is None


def test_the_name_of_a_queue_stays(browser: Client, mail: Queue) -> None:
    browser.post(page(mail), {"name": "letters"})

    assert saved(mail).name == "mail"


def test_the_end_of_a_pause_is_moved(browser: Client, mail: Queue) -> None:
    Queue.objects.pause("mail", "Strike", timezone.now() + A_YEAR)

    browser.post(page(mail), {"resume_at_0": "2100-01-02", "resume_at_1": "03:04:00"})

    assert saved(mail).resume_at == datetime(2100, 1, 2, 3, 4, tzinfo=UTC)
    assert saved(mail).paused_reason == "Strike"


def test_a_pause_of_the_meantime_survives_the_saving_of_the_settings(browser: Client, mail: Queue) -> None:
    def pause_in_between(**kwargs: Any) -> None:
        Queue.objects.pause("mail", "Strike")

    with connected(pre_save, pause_in_between, sender=Queue):
        browser.post(page(mail), {"keep_failed": "1 00:00:00"})

    assert (saved(mail).paused_reason, saved(mail).keep_failed) == ("Strike", timedelta(days=1))


def test_a_queue_is_deleted(browser: Client, mail: Queue) -> None:
    browser.post(f"{QUEUES}{mail.pk}/delete/", {"post": "yes"})

    assert not Queue.objects.exists()
    assert log() == [("mail", "its jobs were kept")]


def test_names_and_reasons_are_shown_as_text(browser: Client) -> None:
    queue = Queue.objects.declare("<b>mail</b>")
    Queue.objects.pause(queue.name, "<i>Strike</i>")

    pages = [browser.get(address).content.decode() for address in (QUEUES, page(queue))]

    for content in pages:
        assert "<b>mail" not in content
        assert "<i>Strike" not in content
        assert "&lt;b&gt;mail" in content
        assert "&lt;i&gt;Strike" in content


def test_a_ready_job_leads_to_the_list_of_jobs(browser: Client, mail: Queue) -> None:
    tasks.send_mail.enqueue("a")
    address = f"/admin/django_jobs/job/?queue_name=mail&state__exact={JobState.READY}"

    content = browser.get(QUEUES).content.decode()

    assert address.replace("&", "&amp;") in content
