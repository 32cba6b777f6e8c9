"""What a person can do to jobs in the admin: retry, cancel, run now, delete; from the list and from a job's page."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest
from django.test import Client
from django.utils import timezone

from django_jobs.admin import actions, job
from django_jobs.models import Attempt, Job, Result
from django_jobs.states import FINISHED, UNSTARTED, JobState

from . import tasks
from .rivals import TIMEOUT, Rival, wait_until_blocked
from .rows import WORKER, job_in, row, state_of
from .visitor import JOBS, act, buttons_of, log, messages_of, press, superuser, text_of

# action -> states it takes jobs from, and where they go
MOVES = {
    "retry": (FINISHED, JobState.READY),
    "cancel": (UNSTARTED, JobState.CANCELLED),
    "run_now": ((JobState.SCHEDULED,), JobState.READY),
}
EVERY_MOVE = [(name, state, target) for name, (sources, target) in MOVES.items() for state in sources]
# A running job that is cancelled stays running: see below.
EVERY_REFUSAL = [
    (name, state)
    for name, (sources, _) in MOVES.items()
    for state in JobState
    if state not in sources and (name, state) != ("cancel", JobState.RUNNING)
]


@pytest.fixture
def browser(db: None) -> Client:
    return superuser()


# Moved and left


@pytest.mark.parametrize(("name", "state", "target"), EVERY_MOVE)
def test_an_action_moves_a_job_from_its_state_and_says_so(
    browser: Client, name: str, state: JobState, target: JobState
) -> None:
    moved = job_in(state)

    told = act(browser, name, moved)

    assert state_of(moved) == target
    assert len(told) == 1
    assert told[0].startswith("1 job ")
    assert [(about, what.endswith(f"it was {state.label}.")) for about, what in log()] == [(str(moved), True)]


@pytest.mark.parametrize(("name", "state"), EVERY_REFUSAL)
def test_an_action_leaves_a_job_in_another_state_and_says_why(browser: Client, name: str, state: JobState) -> None:
    left = job_in(state)

    told = act(browser, name, left)

    assert state_of(left) == state
    assert len(told) == 1
    assert told[0].startswith(f"1 job was left as it was (1 {state.label}). Only ")
    assert log() == []


def test_an_action_counts_what_it_moved_and_what_it_left_by_reason(browser: Client) -> None:
    jobs = [job_in(state) for state in (JobState.FAILED, JobState.SUCCEEDED, JobState.RUNNING, JobState.READY)]
    jobs.append(job_in(JobState.READY))

    told = act(browser, "retry", *jobs)

    assert told == [
        "2 jobs are ready to run again.",
        "3 jobs were left as they were (2 ready, 1 running). Only finished jobs can be retried.",
    ]


def test_a_running_job_is_asked_to_stop_once(browser: Client) -> None:
    running = job_in(JobState.RUNNING)

    told = [act(browser, "cancel", running), act(browser, "cancel", running)]

    assert state_of(running) == JobState.RUNNING
    assert row(running.pk).cancel_requested_at is not None
    assert told == [
        ["1 running job was asked to stop."],
        ["1 job was left as it was (1 asked to stop already). Only unfinished jobs can be cancelled."],
    ]
    assert log() == [(str(running), "Cancelled; it was running.")]


def test_a_job_whose_unique_key_another_job_has_by_now_is_left(browser: Client) -> None:
    first = job_in(JobState.FAILED, unique_key="<daily>")
    second = job_in(JobState.READY, unique_key="<daily>")

    told = act(browser, "retry", first, job_in(JobState.FAILED))

    assert state_of(first) == JobState.FAILED
    assert told[0] == "1 job is ready to run again."
    assert told[1:] == [
        f"1 job was left as it was (1 with a unique key that another job has). {actions.RETRY.rule} Job #{first.pk}: another unfinished job, #{second.pk}, has its unique key '<daily>'.",
    ]


def test_a_job_whose_unique_key_another_keeps_after_its_end_is_left(browser: Client) -> None:
    first, second = job_in(JobState.FAILED, unique_key="daily"), job_in(JobState.SUCCEEDED, unique_key="daily")
    Job.objects.filter(pk=second.pk).update(unique_until=datetime(2040, 2, 3, 4, 5, 6, tzinfo=UTC))

    told = act(browser, "retry", first)

    assert state_of(first) == JobState.FAILED
    assert told[0].endswith(
        f"Job #{first.pk}: job #{second.pk}, which has ended, keeps their unique key 'daily' until 2040-02-03 04:05:06."
    )


def test_of_many_jobs_whose_unique_keys_are_taken_a_few_are_named(browser: Client) -> None:
    failed = [job_in(JobState.FAILED, unique_key=f"key-{number}") for number in range(7)]
    for number in range(7):
        job_in(JobState.READY, unique_key=f"key-{number}")

    told = act(browser, "retry", *failed)

    assert told[0].startswith("7 jobs were left as they were (7 with a unique key that another job has).")
    assert told[0].count("another unfinished job") == actions.MOST_NOTES


def test_more_jobs_than_fit_into_one_piece_are_all_moved(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "PIECE", 2)
    jobs = [job_in(JobState.READY) for _ in range(5)]

    told = act(browser, "cancel", *jobs)

    assert told == ["5 jobs were cancelled."]
    assert {state_of(moved) for moved in jobs} == {JobState.CANCELLED}
    assert len(log()) == 5


def test_all_that_match_are_moved_up_to_a_limit(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "MOST_MOVED", 2)
    oldest, *others = [job_in(JobState.READY) for _ in range(3)]
    scheduled = job_in(JobState.SCHEDULED)

    told = act(browser, "cancel", oldest, at=f"{JOBS}?state__exact=ready", select_across="1")

    assert [state_of(moved) for moved in others] == [JobState.CANCELLED, JobState.CANCELLED]
    assert [state_of(oldest), state_of(scheduled)] == [JobState.READY, JobState.SCHEDULED]
    assert told == [
        "2 jobs were cancelled.",
        "More jobs match: only the newest 2 were looked at. Repeat the action for the others.",
    ]


# At the same time as workers


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cancel", ["1 running job was asked to stop."]),
        (
            "delete_selected",
            ["1 job was left as it was (1 running). Running jobs cannot be deleted: cancel them first."],
        ),
    ],
)
def test_a_job_that_a_worker_is_just_taking_counts_as_running(name: str, expected: list[str]) -> None:
    ready, browser = job_in(JobState.READY), superuser()
    with Rival() as worker, Rival() as person:
        worker.begin()
        worker.run(Job.objects.claim, WORKER, [ready.queue_name], 1)
        acting = person.start(partial(act, browser, name, ready, post="yes"))
        wait_until_blocked()
        worker.commit()

        told = acting.result(TIMEOUT)

    assert told == expected
    assert state_of(ready) == JobState.RUNNING


# Buttons on a job's page


@pytest.mark.parametrize("state", JobState)
def test_a_page_has_buttons_for_what_can_be_done_in_the_state(browser: Client, state: JobState) -> None:
    shown = job_in(state)
    labels = {"retry": "Retry", "cancel": "Cancel this job", "run_now": "Run now"}
    expected = [labels[name] for name, (sources, _) in MOVES.items() if state in sources]

    response = browser.get(f"{JOBS}{shown.pk}/change/")

    assert buttons_of(response) == (["Cancel this job"] if state == JobState.RUNNING else expected)
    assert response.context["has_delete_permission"] is (state != JobState.RUNNING)


@pytest.mark.parametrize(("name", "state", "target"), EVERY_MOVE)
def test_a_button_does_what_the_action_does(browser: Client, name: str, state: JobState, target: JobState) -> None:
    moved = job_in(state)

    told = press(browser, name, moved)

    assert state_of(moved) == target
    assert told[0].startswith("1 job ")
    assert len(log()) == 1


def test_a_button_leads_back_to_the_page_and_keeps_the_filters_of_the_list(browser: Client) -> None:
    moved = job_in(JobState.FAILED)
    filters = "?_changelist_filters=state__exact%3Dfailed"

    response = browser.post(f"{JOBS}{moved.pk}/act/retry/{filters}")

    assert response["Location"] == f"{JOBS}{moved.pk}/change/{filters}"


def test_looking_at_the_address_of_a_button_does_nothing(browser: Client) -> None:
    shown = job_in(JobState.FAILED)

    response = browser.get(f"{JOBS}{shown.pk}/act/retry/")

    assert response["Location"] == f"{JOBS}{shown.pk}/change/"
    assert state_of(shown) == JobState.FAILED


def test_a_button_that_does_not_exist_is_not_found(browser: Client) -> None:
    shown = job_in(JobState.FAILED)

    response = browser.post(f"{JOBS}{shown.pk}/act/render_change_form/")

    assert response.status_code == 404


@pytest.mark.parametrize("address", ["999999999/act/retry/", "word/act/retry/", "999999999/delete/"])
def test_a_button_for_a_job_that_is_gone_says_so(browser: Client, address: str) -> None:
    response = browser.post(f"{JOBS}{address}", follow=True)

    assert messages_of(response) == ["It does not exist any more: it has been deleted."]


def test_a_button_needs_a_token_against_forged_requests(browser: Client) -> None:
    moved = job_in(JobState.FAILED)
    forger = Client(enforce_csrf_checks=True)
    forger.cookies = browser.cookies

    response = forger.post(f"{JOBS}{moved.pk}/act/retry/")

    assert response.status_code == 403
    assert state_of(moved) == JobState.FAILED


# Deletion


def test_deletion_asks_first_and_names_what_it_would_leave(browser: Client) -> None:
    jobs = [job_in(state) for state in (JobState.FAILED, JobState.FAILED, JobState.READY, JobState.RUNNING)]

    response = browser.post(JOBS, {"action": "delete_selected", "_selected_action": [one.pk for one in jobs]})

    assert "Delete 3 jobs?" in text_of(response)
    assert "2 failed 1 ready 1 running job is left as it is: cancel it first." in text_of(response)
    assert Job.objects.count() == 4


def test_a_confirmed_deletion_deletes_the_jobs_with_their_history(browser: Client) -> None:
    deleted, kept = job_in(JobState.FAILED), job_in(JobState.SUCCEEDED)
    Result.objects.create(job=deleted, value=1)

    told = act(browser, "delete_selected", deleted, post="yes")

    assert list(Job.objects.all()) == [kept]
    assert not Attempt.objects.exists()
    assert not Result.objects.exists()
    assert told == ["1 job was deleted."]
    assert log() == [(str(deleted), "Deleted; it was failed.")]


def test_a_running_job_is_never_deleted(browser: Client) -> None:
    running, ready = job_in(JobState.RUNNING), job_in(JobState.READY)

    told = act(browser, "delete_selected", running, ready, post="yes")

    assert list(Job.objects.all()) == [running]
    assert told == [
        "1 job was deleted.",
        "1 job was left as it was (1 running). Running jobs cannot be deleted: cancel them first.",
    ]


def test_jobs_that_came_after_the_question_are_not_deleted(browser: Client) -> None:
    selected = {"action": "delete_selected", "select_across": "1", "_selected_action": job_in(JobState.READY).pk}
    question = browser.post(JOBS, selected)
    late = job_in(JobState.READY)

    browser.post(JOBS, selected | {"post": "yes", "newest": question.context["newest"]})

    assert list(Job.objects.all()) == [late]


def test_one_job_is_deleted_from_its_page_after_a_question(browser: Client) -> None:
    deleted = job_in(JobState.CANCELLED)
    address = f"{JOBS}{deleted.pk}/delete/"
    question = text_of(browser.get(address))

    response = browser.post(address, {"post": "yes"}, follow=True)

    assert "Delete 1 job? These jobs and their history will be deleted: 1 cancelled" in question
    assert not Job.objects.exists()
    assert messages_of(response) == ["1 job was deleted."]
    assert response.redirect_chain[-1][0] == JOBS


def test_a_running_job_is_not_deleted_from_its_page(browser: Client) -> None:
    running = job_in(JobState.RUNNING)
    address = f"{JOBS}{running.pk}/delete/"
    question = text_of(browser.get(address))

    browser.post(address, {"post": "yes"})

    assert "There is nothing to delete." in question
    assert list(Job.objects.all()) == [running]


# The log


def test_what_was_done_to_a_job_stands_in_its_history(browser: Client) -> None:
    shown = job_in(JobState.FAILED)
    press(browser, "retry", shown)

    text = text_of(browser.get(f"{JOBS}{shown.pk}/history/"))

    assert "Retried; it was failed." in text


def test_a_retried_job_shows_its_earlier_attempts_still(browser: Client) -> None:
    shown = row(tasks.noop.enqueue().id)
    Attempt.objects.create(job=shown, number=1, worker_id="w", ended_at=timezone.now(), outcome="failed", message="No")

    assert "Attempt 1 failed" in text_of(browser.get(f"{JOBS}{shown.pk}/change/"))
