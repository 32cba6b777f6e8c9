"""Schedules: when they fire, what becomes of what was missed, and what spoils one of them alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.db.models import F

from django_jobs import signals
from django_jobs.exceptions import InvalidOption, UnknownSchedule
from django_jobs.models import Job, Queue, Schedule, firing
from django_jobs.models.database import as_column, database_now, from_now
from django_jobs.models.firing import GRACE, MOST_COUNTED, fire, run_now
from django_jobs.states import JobState
from django_jobs.worker import duties

from . import tasks
from .processes import wait_until
from .rows import HOUR, claim, outcome, row, start_worker, state_of, write
from .unique_tasks import ship, ship_latest, ship_once

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
# When schedules of tests begin, unless they say otherwise: no moment comes by the database's clock while a test runs.
BEGIN = datetime(2031, 5, 1, 12, tzinfo=UTC)


def declared(name: str = "report", **settings: Any) -> Schedule:
    """Return a schedule of each minute, or whatever the settings say."""
    when = {} if "run_at" in settings else {"cron": "* * * * *", "start_at": BEGIN}
    return Schedule.objects.declare(name, **{"task": tasks.noop, **when, **settings})


def read(name: str = "report") -> Schedule:
    return Schedule.objects.get(name=name)


def due(schedule: Schedule, number: int = 0) -> datetime:
    """Return the next moment of the schedule, or one some minutes later."""
    assert schedule.next_run_at is not None
    return schedule.next_run_at + number * MINUTE


def moments(name: str = "report") -> list[datetime | None]:
    """Return for which moments there are jobs, in their order."""
    return list(Job.objects.filter(schedule__name=name).order_by("id").values_list("scheduled_for", flat=True))


# A moment


def test_a_schedule_fires_at_its_moment_and_not_before() -> None:
    schedule = declared(args=[1], kwargs={"b": 2})
    moment = due(schedule)

    early = Schedule.objects.fire_due(moment - SECOND)
    fired = Schedule.objects.fire_due(moment)

    assert (early, fired) == (0, 1)
    job = Job.objects.get()
    assert (job.schedule, job.scheduled_for, job.task_path) == (schedule, moment, tasks.noop.path)
    assert (job.args, job.kwargs, job.state) == ([1], {"b": 2}, JobState.READY)
    assert (read().next_run_at, read().last_run_at, read().late) == (moment + MINUTE, moment, 0)


def test_a_moment_never_runs_twice() -> None:
    schedule = declared()
    moment = due(schedule)
    Schedule.objects.fire_due(moment)

    again = Schedule.objects.fire_due(moment)
    # As an edit from an outdated page, or another clock, would have it.
    Schedule.objects.update(next_run_at=moment)
    once_more = Schedule.objects.fire_due(moment)

    assert (again, once_more) == (0, 0)
    assert moments() == [moment]
    assert read().next_run_at == moment + MINUTE


def test_the_database_refuses_a_second_job_of_a_moment() -> None:
    schedule = declared()
    Schedule.objects.fire_due(due(schedule))
    other = row(tasks.noop.enqueue().id)

    with pytest.raises(Exception, match="(?i)unique"):
        Job.objects.filter(pk=other.pk).update(schedule=schedule, scheduled_for=due(schedule))


def test_the_clock_of_the_database_decides() -> None:
    declared()
    Schedule.objects.update(next_run_at=from_now(-SECOND))

    assert Schedule.objects.fire_due() == 1
    assert Schedule.objects.fire_due() == 0

    assert read().next_run_at > database_now("default")


def test_a_paused_schedule_does_not_fire_and_what_it_missed_is_not_caught_up() -> None:
    schedule = declared(catch_up="all")
    paused = Schedule.objects.pause("report", reason="moving house")
    Schedule.objects.update(next_run_at=from_now(-HOUR))

    fired = Schedule.objects.fire_due()
    resumed = Schedule.objects.resume("report")

    assert (paused, fired, resumed, Schedule.objects.fire_due()) == (True, 0, True, 0)
    assert due(schedule) <= read().next_run_at
    assert read().paused_reason == ""


def test_one_that_was_paused_after_it_was_found_due_does_not_fire() -> None:
    schedule = declared()
    Schedule.objects.pause("report")

    assert fire(Schedule.objects.all(), schedule.pk, due(schedule)) == 0
    assert moments() == []


def test_pausing_twice_and_resuming_twice_change_nothing_the_second_time() -> None:
    declared()

    assert [Schedule.objects.pause("report"), Schedule.objects.pause("report")] == [True, False]
    assert [Schedule.objects.resume("report"), Schedule.objects.resume("report")] == [True, False]
    with pytest.raises(UnknownSchedule, match="Did you mean 'report'"):
        Schedule.objects.pause("reprot")


def test_the_jobs_of_a_schedule_are_those_of_its_task() -> None:
    schedule = declared(task=tasks.send_mail, args=["a@b.c"])
    declared("other", task=tasks.send_mail, args=["a@b.c"], queue_name="letters", priority=-7)
    Schedule.objects.fire_due(due(schedule))

    plain, changed = Job.objects.order_by("schedule__name").values_list("queue_name", "priority", "max_attempts")[::-1]

    assert plain == ("mail", 5, 7)
    assert changed == ("letters", -7, 7)


def test_receivers_hear_of_the_job_when_it_is_written() -> None:
    heard: list[tuple[Any, ...]] = []

    def hear(sender: Any, schedule: str, job_id: int, scheduled_for: datetime, **rest: Any) -> None:
        heard.append((sender, schedule, state_of(Job(pk=job_id)), scheduled_for))

    schedule = declared()
    signals.schedule_fired.connect(hear)
    try:
        Schedule.objects.fire_due(due(schedule))
    finally:
        signals.schedule_fired.disconnect(hear)

    assert heard == [(Schedule, "report", JobState.READY, due(schedule))]


def test_a_removed_schedule_leaves_its_jobs() -> None:
    schedule = declared()
    Schedule.objects.fire_due(due(schedule))
    moment = due(schedule)

    schedule.delete()

    assert list(Job.objects.values_list("schedule", "scheduled_for")) == [(None, moment)]


def test_a_normal_job_has_no_schedule() -> None:
    job = row(tasks.noop.enqueue().id)

    assert (job.schedule, job.scheduled_for) == (None, None)


# Start, end, once, jitter


def test_nothing_runs_before_the_start_or_after_the_end() -> None:
    schedule = declared(start_at=BEGIN, end_at=BEGIN + MINUTE)

    assert schedule.next_runs() == [BEGIN, BEGIN + MINUTE]
    assert Schedule.objects.fire_due(BEGIN) == 1
    assert Schedule.objects.fire_due(BEGIN + MINUTE) == 1
    assert Schedule.objects.fire_due(BEGIN + HOUR) == 0
    assert (read().next_run_at, read().next_runs()) == (None, [])


def test_a_start_between_two_moments_waits_for_the_second() -> None:
    schedule = declared(start_at=BEGIN + SECOND / 2)

    assert schedule.next_run_at == BEGIN + MINUTE


def test_a_one_off_fires_once() -> None:
    moment = BEGIN
    declared(run_at=moment)

    assert Schedule.objects.fire_due(moment - SECOND) == 0
    assert Schedule.objects.fire_due(moment) == 1
    assert Schedule.objects.fire_due(moment + HOUR) == 0
    assert (moments(), read().next_run_at) == ([moment], None)


def test_a_one_off_whose_time_has_passed_never_runs_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    schedule = declared(run_at=database_now("default") - SECOND)

    assert (schedule.next_run_at, Schedule.objects.fire_due()) == (None, 0)
    [record] = caplog.records
    assert "'report' never runs" in record.getMessage()


def test_a_next_run_that_somebody_has_set_is_kept_and_fires() -> None:
    other = BEGIN + 7 * SECOND
    Schedule.objects.create(name="new", task_path=tasks.noop.path, cron="@daily", next_run_at=other)
    changed = declared("changed")
    changed.next_run_at = other
    changed.save()

    fired = Schedule.objects.fire_due(other)

    assert (fired, moments("new"), moments("changed")) == (2, [other], [other])
    assert read("changed").next_run_at == BEGIN + MINUTE


@pytest.mark.parametrize("read_it", [read, lambda: refreshed(read())], ids=["read", "refreshed"])
def test_who_saves_what_was_read_before_a_firing_does_not_put_it_back(read_it: Any) -> None:
    schedule = declared()
    outdated = read_it()
    Schedule.objects.fire_due(due(schedule))

    outdated.save()

    assert read().next_run_at == outdated.next_run_at == due(schedule, 1)


def refreshed(schedule: Schedule) -> Schedule:
    schedule.refresh_from_db()
    return schedule


def test_jitter_delays_each_run_by_a_part_of_it_that_is_the_same_for_everybody() -> None:
    schedule = declared(jitter=30)
    declared("other", jitter=30)
    for number in range(5):
        Schedule.objects.fire_due(due(schedule, number))

    jobs = list(Job.objects.order_by("id"))
    delays = [(job.run_after - job.scheduled_for).total_seconds() for job in jobs]
    assert all(0 < delay < 30 for delay in delays)
    assert len(set(delays)) == 10
    assert {job.state for job in jobs} == {JobState.SCHEDULED}
    Job.objects.all().delete()
    Schedule.objects.update(next_run_at=due(schedule), last_run_at=None)
    Schedule.objects.fire_due(due(schedule))
    assert {(job.run_after - job.scheduled_for).total_seconds() for job in Job.objects.all()} < set(delays)


def test_jitter_that_has_passed_delays_nothing() -> None:
    schedule = declared(jitter=30)

    Schedule.objects.fire_due(due(schedule) + 31 * SECOND)

    assert Job.objects.get().run_after is None


def test_a_leap_day_comes_every_four_years() -> None:
    schedule = declared(cron="0 12 29 2 *", start_at=datetime(2027, 1, 1, tzinfo=UTC))
    leap_days = [datetime(year, 2, 29, 12, tzinfo=UTC) for year in (2028, 2032)]

    fired = [Schedule.objects.fire_due(day) for day in leap_days]

    assert fired == [1, 1]
    assert moments() == leap_days
    assert schedule.next_runs(2) == leap_days


def test_a_fixed_time_runs_once_on_the_day_on_which_it_comes_twice() -> None:
    first = datetime(2031, 10, 26, 0, 30, tzinfo=UTC)
    declared(cron="30 2 * * *", timezone="Europe/Paris", start_at=first)

    fired = [Schedule.objects.fire_due(first), Schedule.objects.fire_due(first + HOUR)]

    assert fired == [1, 0]
    assert read().next_run_at == first + 25 * HOUR


# What was missed


def test_moments_that_come_a_little_late_all_run() -> None:
    schedule = declared(cron="* * * * * */10", catch_up="none")
    first = due(schedule)

    Schedule.objects.fire_due(first + GRACE - SECOND)

    assert moments() == [first + number * 10 * SECOND for number in range(6)]
    assert (read().late, read().missed) == (0, 0)


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ({"catch_up": "none"}, [180]),
        ({"catch_up": "latest"}, [180]),
        ({"catch_up": "all"}, range(171, 181)),
        ({"catch_up": "all", "catch_up_limit": 3}, [178, 179, 180]),
        ({"catch_up": "all", "catch_up_limit": 1000}, range(181)),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_after_three_hours_without_workers_the_policy_says_what_runs(settings: dict[str, Any], numbers: Any) -> None:
    schedule = declared(**settings)
    first = due(schedule)

    Schedule.objects.fire_due(first + 3 * HOUR)

    assert moments() == [first + number * MINUTE for number in numbers]
    assert read().missed == 181 - len(numbers)
    # The last is in time.
    assert read().late == len(numbers) - 1
    assert read().next_run_at == first + 3 * HOUR + MINUTE


@pytest.mark.parametrize(("catch_up", "made"), [("none", 0), ("latest", 1), ("all", 1)])
def test_a_start_that_is_three_hours_late_runs_if_the_policy_wants_it_and_counts(catch_up: str, made: int) -> None:
    schedule = declared(cron="0 0 1 * *", catch_up=catch_up)
    first = due(schedule)

    Schedule.objects.fire_due(first + 3 * HOUR)

    assert moments() == [first] * made
    assert (read().late, read().missed) == (made, 1 - made)


def test_a_one_off_that_was_missed_follows_the_policy() -> None:
    moment = BEGIN
    declared(run_at=moment)
    declared("other", run_at=moment, catch_up="none")

    Schedule.objects.fire_due(moment + HOUR)

    assert (moments(), moments("other")) == ([moment], [])
    assert read("other").next_run_at is None


def test_a_month_of_missed_seconds_is_caught_up_in_a_moment() -> None:
    schedule = declared(cron="* * * * * *", catch_up="all", catch_up_limit=5)
    first = due(schedule)
    now = first + timedelta(days=30)

    Schedule.objects.fire_due(now)

    assert moments() == [now - number * SECOND for number in (4, 3, 2, 1, 0)]
    assert read().missed == MOST_COUNTED - 5
    assert read().next_run_at == now + SECOND


# The clock is set


def test_a_clock_that_jumps_ahead_is_a_late_start() -> None:
    schedule = declared(cron="0 * * * *")
    first = due(schedule)

    Schedule.objects.fire_due(first + 48 * HOUR + 30 * MINUTE)

    assert moments() == [first + 48 * HOUR]
    assert (read().late, read().missed) == (1, 48)


def test_a_clock_that_jumps_back_runs_no_moment_twice_and_silences_nothing() -> None:
    schedule = declared()
    first = due(schedule)
    for number in range(5):
        Schedule.objects.fire_due(due(schedule, number))

    back = [Schedule.objects.fire_due(first + seconds * SECOND) for seconds in (-90, 0, 60, 120, 180, 240)]
    fired = Schedule.objects.fire_due(due(schedule, 5))

    assert (back, fired) == ([0] * 6, 1)
    assert moments() == [due(schedule, number) for number in range(6)]


def test_a_clock_that_was_a_year_ahead_silences_nothing() -> None:
    schedule = declared()
    first = due(schedule)
    Schedule.objects.fire_due(first + timedelta(days=365))
    declared("new")
    Schedule.objects.filter(name="new").update(next_run_at=F("next_run_at") + HOUR, updated_at=first + HOUR)

    for _ in range(3):
        Schedule.objects.fire_due(first - SECOND)
    fired = Schedule.objects.fire_due(first)

    assert fired == 2
    assert (moments()[-1], moments("new")) == (first, [first])


# Overlap


def test_a_run_whose_last_job_is_unfinished_may_be_allowed_beside_it() -> None:
    schedule = declared()

    for number in range(3):
        Schedule.objects.fire_due(due(schedule, number))

    assert [job.state for job in Job.objects.all()] == [JobState.READY] * 3


def test_a_run_whose_last_job_is_unfinished_may_be_skipped_and_counts() -> None:
    schedule = declared(overlap="skip")
    Schedule.objects.fire_due(due(schedule))
    start_worker()
    [running] = claim()
    Schedule.objects.fire_due(due(schedule, 1))
    skipped = moments(), read().skipped, read().next_run_at
    write(outcome(running, "succeed"))

    Schedule.objects.fire_due(due(schedule, 2))

    assert skipped == ([due(schedule)], 1, due(schedule, 2))
    assert moments() == [due(schedule), due(schedule, 2)]
    assert read().skipped == 1


def test_a_run_may_replace_the_last_job() -> None:
    schedule = declared(overlap="replace")
    Schedule.objects.fire_due(due(schedule))
    start_worker()
    [running] = claim()
    Schedule.objects.fire_due(due(schedule, 1))

    Schedule.objects.fire_due(due(schedule, 2))

    first, second, third = Job.objects.order_by("id")
    assert (first.pk, first.state, first.cancel_requested_at is None) == (running.id, JobState.RUNNING, False)
    assert (second.state, third.state) == (JobState.CANCELLED, JobState.READY)


def test_the_jobs_of_others_are_no_predecessors() -> None:
    skipping = declared(overlap="skip")
    declared("other", overlap="replace")
    tasks.noop.enqueue()

    Schedule.objects.fire_due(due(skipping))

    assert (len(moments()), len(moments("other"))) == (1, 1)
    assert not Job.objects.filter(state=JobState.CANCELLED).exists()


@pytest.mark.parametrize("overlap", ["skip", "replace"])
def test_a_job_that_was_run_by_hand_is_a_predecessor_too(overlap: str) -> None:
    schedule = declared(overlap=overlap)
    by_hand = Schedule.objects.run_now("report")

    Schedule.objects.fire_due(due(schedule))

    assert state_of(by_hand) == (JobState.READY if overlap == "skip" else JobState.CANCELLED)
    assert moments() == [None] + [due(schedule)] * (overlap == "replace")


def test_of_several_moments_at_once_one_runs_where_the_others_would_overlap() -> None:
    schedule = declared(overlap="skip", catch_up="all")

    Schedule.objects.fire_due(due(schedule, 4))

    assert moments() == [due(schedule)]
    assert read().skipped == 4


# The rules of the task


@pytest.mark.parametrize("unique", [ship, ship_once], ids=["return", "raise"])
def test_a_moment_whose_unique_key_another_job_has_is_skipped(unique: Any) -> None:
    schedule = declared(task=unique, args=[1])
    holder = unique.enqueue(1)

    Schedule.objects.fire_due(due(schedule))

    assert [str(job.pk) for job in Job.objects.all()] == [holder.id]
    assert (read().skipped, read().next_run_at, row(holder.id).schedule) == (1, due(schedule, 1), None)


def test_a_job_that_a_later_call_replaces_stays_the_job_of_its_moment() -> None:
    schedule = declared(task=ship_latest, args=[1])
    Schedule.objects.fire_due(due(schedule))
    waiting = Job.objects.get()

    replaced = ship_latest.using(priority=7).enqueue(1)
    Schedule.objects.fire_due(due(schedule, 1))

    job = Job.objects.get()
    assert (replaced.id, job.pk, job.schedule, job.scheduled_for) == (str(job.pk), waiting.pk, schedule, due(schedule))
    assert (read().skipped, read().next_run_at) == (1, due(schedule, 2))


def test_a_job_that_needs_a_slot_waits_for_it() -> None:
    schedule = declared(task=tasks.sync_account, args=[7])

    Schedule.objects.fire_due(due(schedule, 0))
    Schedule.objects.fire_due(due(schedule, 1))

    assert [job.state for job in Job.objects.order_by("id")] == [JobState.READY, JobState.BLOCKED]


# By hand


def test_run_now_makes_a_job_beside_the_moments() -> None:
    schedule = declared()

    result = Schedule.objects.run_now("report")

    assert (row(result.id).schedule, row(result.id).scheduled_for) == (schedule, None)
    assert read().next_run_at == schedule.next_run_at
    assert Schedule.objects.fire_due(due(schedule)) == 1


def test_run_now_goes_past_a_pause_and_refuses_what_cannot_run() -> None:
    declared()
    Schedule.objects.pause("report")
    declared("bad")
    Schedule.objects.filter(name="bad").update(task_path="gone.task")

    Schedule.objects.run_now("report")

    with pytest.raises(InvalidOption, match=r"gone\.task"):
        Schedule.objects.run_now("bad")
    with pytest.raises(UnknownSchedule, match="nothing"):
        Schedule.objects.run_now("nothing")
    assert Job.objects.count() == 1


def test_one_that_is_deleted_just_before_it_is_run_makes_no_job() -> None:
    schedule = declared()
    Schedule.objects.all().delete()

    with pytest.raises(UnknownSchedule, match="'report' was deleted"):
        run_now(Schedule.objects.all(), schedule)

    assert not Job.objects.exists()


# A row that has become bad


BAD: list[dict[str, Any]] = [
    {"task_path": "gone.task"},
    {"task_path": ""},
    {"timezone": "Mars/Olympus"},
    {"timezone": "../etc/passwd"},
    {"timezone": ""},
    {"cron": "every day"},
    {"cron": "0 0 31 2 *"},
    {"cron": ""},
    {"args": {"a": 1}},
    {"kwargs": [1]},
    {"args": "text"},
    {"kwargs": {"nobody": 1}, "task_path": tasks.add.path},
    {"args": [1, 2, 3], "task_path": tasks.add.path},
    {"args": [], "task_path": tasks.add.path},
    {"jitter": -1.0},
    {"jitter": float("inf")},
    {"overlap": "maybe"},
    {"catch_up": "some"},
    {"catch_up_limit": 0},
    {"priority": 1000},
    {"queue_name": " "},
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_bad_row_is_shown_and_the_others_run(bad: dict[str, Any]) -> None:
    first, last = declared("a"), declared("c")
    declared("b")
    Schedule.objects.filter(name="b").update(**bad)

    fired = [Schedule.objects.fire_due(due(first)) for _ in range(2)]

    assert fired == [2, 0]
    assert (moments("a"), moments("b"), moments("c")) == ([due(first)], [], [due(last)])
    assert next(iter(bad)) in read("b").problem or "cannot be passed" in read("b").problem
    assert read("a").problem == ""


def test_a_row_that_was_mended_runs_on_by_its_policy() -> None:
    schedule = declared()
    Schedule.objects.update(task_path="gone.task")
    Schedule.objects.fire_due(due(schedule))
    Schedule.objects.update(task_path=tasks.noop.path)

    fired = Schedule.objects.fire_due(due(schedule, 10))

    assert (fired, read().problem, read().missed) == (1, "", 10)


def test_a_row_that_is_resumed_while_it_is_bad_runs_on_once_it_is_mended() -> None:
    schedule = declared(timezone="Europe/Paris")
    # As on a host that lacks the zone, which comes back with the next deploy.
    Schedule.objects.update(timezone="Europe/Pariss")
    Schedule.objects.pause("report")
    Schedule.objects.resume("report")
    Schedule.objects.fire_due(due(schedule))
    bad = read().problem
    Schedule.objects.update(timezone="Europe/Paris")

    fired = Schedule.objects.fire_due(due(schedule))

    assert "Europe/Pariss" in bad
    assert (fired, read().problem, read().next_run_at) == (1, "", due(schedule, 1))


def test_json_that_nobody_can_read_spoils_its_row_only() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL stores no such JSON")
    first = declared("a")
    declared("b")
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA ignore_check_constraints = ON")
        cursor.execute("UPDATE django_jobs_schedule SET args = '[1,' WHERE name = 'b'")
        cursor.execute("PRAGMA ignore_check_constraints = OFF")

    assert Schedule.objects.fire_due(due(first)) == 1

    assert "args must be a list" in read("b").problem


@pytest.mark.parametrize(
    ("column", "time"),
    [
        ("next_run_at", "-infinity"),
        ("next_run_at", "0044-03-15 BC"),
        ("start_at", "infinity"),
        ("updated_at", "infinity"),
    ],
)
def test_a_time_that_nobody_can_read_spoils_its_row_only(column: str, time: str) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no such times")
    for name in ("a", "b", "c"):
        declared(name)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE django_jobs_schedule SET {column} = %s WHERE name = 'b'", [time])

    assert Schedule.objects.fire_due(BEGIN) == 2
    assert Schedule.objects.values_list("fault", flat=True).get(name="b")


def test_a_task_that_cannot_be_enqueued_spoils_its_schedule_only(monkeypatch: pytest.MonkeyPatch) -> None:
    first = declared("a")
    declared("b", task=tasks.sync_account, args=[1])
    declared("c")
    monkeypatch.setattr("tests.tasks._key_of_account.__code__", (lambda account, size=1: 1 / 0).__code__)

    fired = Schedule.objects.fire_due(due(first))

    assert (fired, moments("b")) == (2, [])
    assert "ZeroDivisionError" in read("b").problem
    # Nothing of it was written, and it is tried again.
    assert read("b").next_run_at == due(first)


def test_a_fault_is_logged_once_and_not_with_each_pass(caplog: pytest.LogCaptureFixture) -> None:
    schedule = declared()
    Schedule.objects.update(task_path="gone.task")

    for _ in range(3):
        Schedule.objects.fire_due(due(schedule))

    assert [record.levelname for record in caplog.records] == ["WARNING"]


# The duty


def test_a_pass_ends_in_time_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firing, "LONGEST_PASS", 0.0)
    for name in ("a", "b", "c", "d"):
        declared(name)
    # The bad ones are the longest due.
    Schedule.objects.filter(name__in="ab").update(task_path="gone.task", next_run_at=BEGIN - HOUR)

    fired = [Schedule.objects.fire_due(BEGIN) for _ in range(6)]

    assert fired == [0, 0, 1, 1, 0, 0]
    assert (moments("c"), moments("d")) == ([BEGIN], [BEGIN])


def test_the_duty_fires_and_says_when_to_come_again() -> None:
    for name in ("report", "soon", "now"):
        declared(name)
    Schedule.objects.filter(name="soon").update(next_run_at=from_now(timedelta(seconds=30)))
    Schedule.objects.filter(name="now").update(next_run_at=from_now(-SECOND))

    waits = [duties.fire_schedules(), duties.fire_schedules()]

    assert len(moments("now")) == 1
    # At once after it has fired: another may have come meanwhile.
    assert waits[0] == timedelta(0)
    assert waits[1] is not None
    assert timedelta(0) < waits[1] <= timedelta(seconds=30)


def test_a_moment_that_comes_while_the_duty_looks_is_not_left_for_its_next_round() -> None:
    declared()
    coming = database_now("default") + timedelta(milliseconds=300)
    Schedule.objects.update(next_run_at=as_column(coming))
    seen: list[str] = []

    def look_before_and_after(execute: Any, sql: str, *args: Any) -> Any:
        if seen:
            wait_until(lambda: datetime.now(UTC) > coming, message="the moment")
        seen.append(sql)
        return execute(sql, *args)

    with connection.execute_wrapper(look_before_and_after):
        duties.fire_schedules()

    assert moments() == [coming]


def test_the_duty_goes_on_at_once_while_more_are_due_and_waits_for_bad_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firing, "LONGEST_PASS", 0.0)
    for name in ("a", "b", "bad"):
        declared(name)
    Schedule.objects.filter(name="bad").update(task_path="gone.task", fault="It is gone.")
    Schedule.objects.update(next_run_at=from_now(-SECOND))

    waits = [duties.fire_schedules() for _ in range(3)]

    assert (waits, Job.objects.count()) == ([timedelta(0), timedelta(0), None], 2)


def test_a_worker_that_ends_when_nothing_is_left_fires_what_is_due() -> None:
    Queue.objects.declare("default")
    declared()
    Schedule.objects.update(next_run_at=from_now(-SECOND))

    assert duties.bring_up_jobs(["*"])
    assert len(moments()) == 1


@pytest.fixture
def statements() -> Iterator[list[str]]:
    seen: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield seen


def test_looking_for_due_schedules_takes_two_statements_however_many_there_are(statements: list[str]) -> None:
    for number in range(5):
        declared(f"number {number}")
    del statements[:]

    duties.fire_schedules()

    assert len(statements) == 2


def test_a_normal_job_is_written_without_a_word_of_schedules(statements: list[str]) -> None:
    if not connection.features.has_native_json_field:
        pytest.skip("SQLite's rows are written by the ORM, with all columns")

    tasks.noop.enqueue()
    tasks.noop.enqueue_many([((), {})] * 3)

    assert not any("schedule" in statement for statement in statements)


def test_the_next_runs_begin_with_the_next_and_follow_the_expression() -> None:
    schedule = declared(cron="*/10 * * * *")

    runs = schedule.next_runs()

    assert runs[0] == schedule.next_run_at == BEGIN
    assert {later - earlier for earlier, later in pairwise(runs)} == {10 * MINUTE}
    assert schedule.next_runs(2, after=runs[3]) == [runs[4], runs[4] + 10 * MINUTE]
    assert Schedule(cron="*/10 * * * *", timezone="UTC", start_at=BEGIN).next_runs() == runs
    assert Schedule(cron="bad", timezone="UTC").next_runs() == []
