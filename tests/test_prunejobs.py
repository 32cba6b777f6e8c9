"""``manage.py prunejobs``: which finished jobs it deletes, and what it refuses."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_jobs.management.commands.prunejobs import parse_age
from django_jobs.models import Attempt, Job, Queue, Result
from django_jobs.states import FINISHED, UNFINISHED, JobState

from . import tasks
from .rows import HOUR, job_in, row

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def prunejobs(*arguments: str) -> str:
    """Run the command and return what it says."""
    output = StringIO()
    call_command("prunejobs", *arguments, stdout=output)
    return output.getvalue().strip()


def refused(*arguments: str) -> str:
    """Return why the command refuses the arguments."""
    with pytest.raises(CommandError) as caught:
        prunejobs(*arguments)
    return str(caught.value)


def finished(age: timedelta = 30 * DAY, state: JobState = JobState.SUCCEEDED, **using: Any) -> int:
    """Return the id of a job that finished so long ago."""
    job = job_in(state, **using)
    Job.objects.filter(pk=job.pk).update(finished_at=timezone.now() - age)
    return job.pk


def left() -> set[int]:
    return set(Job.objects.values_list("pk", flat=True))


# Ages


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("45s", timedelta(seconds=45)),
        ("45", timedelta(seconds=45)),
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("1.5h", timedelta(minutes=90)),
        (" 0d ", timedelta()),
    ],
)
def test_an_age_is_a_number_and_a_unit(text: str, age: timedelta) -> None:
    assert parse_age(text) == age


@pytest.mark.parametrize("text", ["45s", "30m", "12h", "7d", "2w"])
def test_jobs_that_finished_longer_ago_are_deleted_and_younger_ones_are_not(text: str) -> None:
    age = parse_age(text)
    older, younger = finished(age + timedelta(seconds=20)), finished(age - timedelta(seconds=20))

    said = prunejobs("--older-than", text)

    assert said == "Deleted 1 jobs."
    assert left() == {younger}
    assert older not in left()


def test_the_age_is_seven_days_unless_told() -> None:
    younger = finished(7 * DAY - HOUR)
    finished(7 * DAY + HOUR)

    prunejobs()

    assert left() == {younger}


@pytest.mark.parametrize("text", ["", "d", "7x", "7 d", "-7d", "7d12h", "nan", "inf", "1e3", "seven days"])
def test_what_is_no_age_is_refused(text: str) -> None:
    finished()

    reason = refused(f"--older-than={text}")

    assert reason == f"--older-than {text!r} is no age. Write a number with s, m, h, d or w after it, as in 7d."
    assert len(left()) == 1


@pytest.mark.parametrize("text", ["101w", "5000w"])
def test_an_age_of_many_years_works(text: str) -> None:
    finished()

    assert prunejobs("--older-than", text) == "Deleted 0 jobs."


@pytest.mark.parametrize("text", ["1000000d", "999999999d", "1" + "0" * 30 + "w", "9" * 400])
def test_an_age_that_no_calendar_holds_is_refused(text: str) -> None:
    finished()

    assert refused("--older-than", text) == f"--older-than {text!r} is too long an age."


# Which jobs


def test_a_job_goes_with_its_result_and_history() -> None:
    pk = finished(state=JobState.FAILED)
    Result.objects.create(job_id=pk, value=1)
    assert Attempt.objects.exists()

    prunejobs()

    assert (Job.objects.count(), Result.objects.count(), Attempt.objects.count()) == (0, 0, 0)


@pytest.mark.parametrize("state", UNFINISHED)
def test_an_unfinished_job_is_never_touched(state: JobState) -> None:
    pk = job_in(state).pk
    Job.objects.filter(pk=pk).update(enqueued_at=timezone.now() - 30 * DAY)

    said = prunejobs("--older-than", "0s")

    assert said == "Deleted 0 jobs."
    assert row(pk).state == state


@pytest.mark.parametrize("state", UNFINISHED)
def test_an_unfinished_state_cannot_be_asked_for(state: JobState) -> None:
    assert f"invalid choice: '{state.value}'" in refused("--state", state.value)


def test_the_states_are_those_that_are_named_and_all_without_one() -> None:
    ids = {state: finished(state=state) for state in FINISHED}

    prunejobs("--state", "failed", "--state", "cancelled")
    after_two = left()
    prunejobs()

    assert after_two == {ids[JobState.SUCCEEDED]}
    assert left() == set()


def test_only_jobs_of_the_named_queues_are_deleted() -> None:
    Queue.objects.declare_all(["mail", "sums", "other"])
    ids = {name: finished(queue_name=name) for name in ("mail", "sums", "other")}

    prunejobs("--queue", "mail", "--queue", "sums")

    assert left() == {ids["other"]}


def test_only_jobs_of_the_named_tasks_are_deleted() -> None:
    gone, kept = finished(), finished(task=tasks.add.using(queue_name="sums"))

    prunejobs("--task", "tests.tasks.noop")

    assert left() == {kept}
    assert gone not in left()


def test_a_task_that_is_declared_no_more_can_still_be_pruned() -> None:
    pk = finished()
    Job.objects.filter(pk=pk).update(task_path="shop.tasks.of_last_year")

    assert prunejobs("--task", "shop.tasks.of_last_year") == "Deleted 1 jobs."


def test_all_that_is_named_must_hold() -> None:
    Queue.objects.declare("mail")
    kept = {finished(queue_name="mail"), finished(state=JobState.FAILED)}
    finished(queue_name="mail", state=JobState.FAILED)

    prunejobs("--queue", "mail", "--state", "failed")

    assert left() == kept


def test_an_unknown_queue_is_refused_with_a_suggestion() -> None:
    Queue.objects.declare_all(["mail", "reports"])
    finished()

    assert refused("--queue", "mial") == "--queue 'mial': there is no such queue. Did you mean 'mail'?"
    assert refused("--queue", "mail", "--queue", "zzz") == "--queue 'zzz': there is no such queue."
    assert len(left()) == 1


# How many


def test_a_limit_deletes_the_longest_finished() -> None:
    ids = [finished(days * DAY) for days in (10, 30, 20)]

    said = prunejobs("--limit", "2")

    assert said == "Deleted 2 jobs."
    assert left() == {ids[0]}


@pytest.mark.parametrize(("limit", "batches"), [((), [2, 2, 1]), (("--limit", "3"), [2, 1])])
def test_jobs_are_deleted_in_batches(limit: tuple[str, ...], batches: list[int]) -> None:
    from django_jobs.signals import jobs_pruned

    heard: list[int] = []

    def hear(count: int, **arguments: Any) -> None:
        heard.append(count)

    for _ in range(5):
        finished()
    jobs_pruned.connect(hear)
    try:
        prunejobs("--batch-size", "2", *limit)
    finally:
        jobs_pruned.disconnect(hear)

    assert heard == batches


@pytest.mark.parametrize("flag", ["--limit", "--batch-size"])
@pytest.mark.parametrize("number", ["0", "-1"])
def test_a_number_that_cannot_work_is_refused(flag: str, number: str) -> None:
    assert refused(f"{flag}={number}") == f"{flag} must be at least 1, not {number}."


def test_a_dry_run_says_how_many_and_deletes_nothing() -> None:
    ids = {finished() for _ in range(3)} | {finished(HOUR)}

    with CaptureQueriesContext(connection) as captured:
        said = prunejobs("--dry-run")
    limited = prunejobs("--dry-run", "--limit", "2", "--batch-size", "1")

    assert (said, limited) == ("Would delete 3 jobs.", "Would delete 2 jobs.")
    assert not [query["sql"] for query in captured if "DELETE" in query["sql"].upper()]
    assert left() == ids


def test_a_dry_run_refuses_what_a_run_refuses() -> None:
    assert "is no age" in refused("--dry-run", "--older-than", "soon")
    assert "no such queue" in refused("--dry-run", "--queue", "zzz")
