"""What the leader does every n seconds: each duty once, called as the leader calls it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_jobs import conf
from django_jobs.exceptions import InvalidOption
from django_jobs.models import Job, Queue, Worker
from django_jobs.models.database import from_now, has_come
from django_jobs.states import JobState
from django_jobs.worker import duties

from . import tasks
from .middleware import takes_nothing
from .rows import HOUR, claimed, end_lease, job_in, row, start_worker, state_of

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def finished(age: timedelta, state: JobState = JobState.SUCCEEDED, **using: Any) -> int:
    """Return the id of a job that finished so long ago."""
    job = job_in(state, **using)
    Job.objects.filter(pk=job.pk).update(finished_at=timezone.now() - age)
    return job.pk


def left() -> set[int]:
    return set(Job.objects.values_list("pk", flat=True))


# The table


@pytest.mark.parametrize("timeout", [0.1, 1.0, 30.0, 3600.0])
def test_dead_workers_are_looked_for_within_five_seconds_and_within_their_lease(timeout: float) -> None:
    table = {duty.name: duty for duty in duties.own_duties(timeout)}

    assert list(table) == [
        "rescue", "fire schedules", "declare queues", "give out slots", "raise priorities", "forget limits", "prune",
        "forget workers",
    ]  # fmt: skip
    assert 0 < table["rescue"].seconds <= min(5.0, timeout)


def test_every_duty_may_be_done_where_nothing_is_to_do() -> None:
    for duty in duties.own_duties(30.0):
        duty.do()


# Rescue


def test_rescue_takes_the_jobs_of_workers_whose_lease_has_ended() -> None:
    start_worker("dead")
    start_worker("alive")
    lost, kept = claimed(worker_id="dead"), claimed(worker_id="alive")
    end_lease("dead")

    duties.rescue()

    assert (state_of(lost), state_of(kept)) == (JobState.READY, JobState.RUNNING)


def test_rescue_goes_on_until_nobody_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from django_jobs.models import rescue

    for module in (rescue, duties):
        monkeypatch.setattr(module, "RESCUE_BATCH", 2)
    start_worker()
    jobs = [claimed() for _ in range(5)]
    end_lease()

    duties.rescue()

    assert {state_of(job) for job in jobs} == {JobState.READY}


# Queues


def test_queues_that_jobs_wait_in_and_nobody_declared_are_declared() -> None:
    Queue.objects.declare("known")
    for name in ("known", "unknown", "unknown", "also unknown"):
        tasks.noop.using(queue_name=name).enqueue()

    declared = duties.declare_queues()

    assert declared == 2
    assert set(Queue.objects.values_list("name", flat=True)) == {"known", "unknown", "also unknown"}
    assert duties.declare_queues() == 0


def test_jobs_are_brought_up_for_the_queues_that_a_worker_serves() -> None:
    tasks.noop.using(queue_name="undeclared").enqueue()

    assert duties.bring_up_jobs(["undeclared"])
    assert duties.bring_up_jobs(["und*"])
    assert not duties.bring_up_jobs(["*", "!undeclared"])


def test_jobs_that_a_leader_has_brought_up_just_before_are_found_too() -> None:
    scheduled = tasks.noop.using(run_after=timezone.now() - HOUR, queue_name="undeclared").enqueue()
    Job.objects.stage_due()
    duties.declare_queues()

    assert duties.bring_up_jobs(["*"])
    assert state_of(scheduled) == JobState.READY


def test_due_jobs_are_brought_up_and_later_ones_are_not() -> None:
    Queue.objects.declare("default")
    later = tasks.noop.using(run_after=HOUR).enqueue()
    nothing_due = duties.bring_up_jobs(["*"])
    due = tasks.noop.using(run_after=timezone.now() - HOUR).enqueue()

    assert not nothing_due
    assert duties.bring_up_jobs(["*"])
    assert (state_of(later), state_of(due)) == (JobState.SCHEDULED, JobState.READY)


def test_a_time_that_the_database_has_just_written_has_come_to_it() -> None:
    # In one statement the database's clock stands still.
    job = Job.objects.filter(pk=job_in(JobState.READY).pk).annotate(written=from_now(timedelta()))

    assert job.filter(written__lte=has_come(job.db)).exists()
    assert not job.filter(written__lte=has_come(job.db) - timedelta(milliseconds=2)).exists()


def test_jobs_of_a_paused_queue_are_no_reason_to_go_on() -> None:
    Queue.objects.declare("default")
    Queue.objects.pause("default")
    tasks.noop.enqueue()

    assert not duties.bring_up_jobs(["*"])


# Prune


def test_finished_jobs_go_after_the_time_that_the_settings_say(settings: Any) -> None:
    settings.DJANGO_JOBS = {"KEEP_SUCCEEDED": 86400, "KEEP_FAILED": 3 * 86400}
    finished(DAY + HOUR)
    finished(3 * DAY + HOUR, JobState.FAILED)
    finished(3 * DAY + HOUR, JobState.CANCELLED)
    kept = {finished(DAY - HOUR), finished(2 * DAY, JobState.FAILED), finished(2 * DAY, JobState.CANCELLED)}

    duties.prune()

    assert left() == kept


@pytest.mark.parametrize(("name", "state"), [("KEEP_SUCCEEDED", "succeeded"), ("KEEP_FAILED", "failed")])
def test_a_time_of_zero_keeps_jobs_for_ever(settings: Any, name: str, state: str) -> None:
    settings.DJANGO_JOBS = {name: 0}
    kept = finished(3650 * DAY, JobState(state))

    duties.prune()

    assert left() == {kept}


def test_a_queue_may_have_times_of_its_own() -> None:
    Queue.objects.declare("short", keep_succeeded=HOUR)
    Queue.objects.declare("long", keep_succeeded=365 * DAY)
    Queue.objects.declare("for ever", keep_succeeded=timedelta())
    finished(2 * HOUR, queue_name="short")
    finished(8 * DAY)
    kept = {
        finished(2 * HOUR),
        finished(364 * DAY, queue_name="long"),
        finished(3650 * DAY, queue_name="for ever"),
        # Of failed jobs the queue says nothing.
        finished(2 * HOUR, JobState.FAILED, queue_name="short"),
    }

    duties.prune()

    assert left() == kept


def test_an_unfinished_job_is_never_pruned() -> None:
    kept = {job_in(JobState.RUNNING).pk, job_in(JobState.READY).pk}
    Job.objects.update(enqueued_at=timezone.now() - 3650 * DAY)

    duties.prune()

    assert left() == kept


# Workers


def test_workers_that_ended_long_ago_are_forgotten() -> None:
    for worker_id, seconds in (("old", conf.read("KEEP_WORKERS") + 60), ("new", 60)):
        start_worker(worker_id)
        Worker.objects.mark_stopped(worker_id)
        seen = timezone.now() - timedelta(seconds=seconds)
        Worker.objects.filter(worker_id=worker_id).update(last_seen=seen)

    duties.forget_workers()

    assert Worker.objects.get().worker_id == "new"


def test_the_jobs_of_a_forgotten_worker_still_say_who_it_was() -> None:
    start_worker("old")
    job = job_in(JobState.SUCCEEDED)
    Worker.objects.all().delete()

    assert row(job.pk).worker_id == job.worker_id != ""


# Plugins


def test_a_plugin_adds_duties_by_a_setting(settings: Any) -> None:
    settings.DJANGO_JOBS = {"DUTIES": [("report", 5, "tests.middleware.takes_nothing")]}

    (duty,) = duties.plugin_duties()

    assert duty == ("report", 5.0, takes_nothing)


@pytest.mark.parametrize(
    "entry",
    [
        "report",
        ("report", 5),
        ("report", "often", "tests.middleware.takes_nothing"),
        ("report", 5, "tests.middleware.no_such_name"),
        ("report", 5, "no.such.module.name"),
        None,
    ],
)
def test_a_duty_that_cannot_work_is_refused_with_its_entry(settings: Any, entry: Any) -> None:
    settings.DJANGO_JOBS = {"DUTIES": [entry]}

    with pytest.raises(InvalidOption) as caught:
        duties.plugin_duties()

    assert f"DJANGO_JOBS['DUTIES'] has {entry!r}" in str(caught.value)
