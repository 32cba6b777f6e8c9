"""What may be said of a schedule, by whom, and what a change of it does: edits, declarations of code, checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.core.serializers import deserialize
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_jobs import conf, task
from django_jobs.checks import check_settings
from django_jobs.exceptions import InvalidOption
from django_jobs.models import Job, Schedule
from django_jobs.models.database import database_now
from django_jobs.task import withdraw
from django_jobs.worker.options import declare_known_schedules

from . import tasks
from .rivals import Rival, let_pass, wait_until_blocked
from .rows import HOUR

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
NOOP = {"task": tasks.noop, "cron": "0 3 * * *"}
FAR = datetime(2099, 5, 1, 12, tzinfo=UTC)


def read(name: str = "report") -> Schedule:
    return Schedule.objects.get(name=name)


def now() -> datetime:
    return database_now("default")


# Declaring by hand


def test_a_schedule_has_the_project_s_zone_and_friendly_defaults(settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"

    schedule = Schedule.objects.declare("report", task=tasks.noop.path, cron=" @daily ")

    assert (schedule.cron, schedule.timezone, schedule.enabled, schedule.words) == (
        "@daily",
        "Asia/Tokyo",
        True,
        "At 00:00",
    )
    assert (schedule.overlap, schedule.catch_up, schedule.catch_up_limit) == ("allow", "latest", 10)
    assert schedule.next_run_at.astimezone(ZoneInfo("Asia/Tokyo")).hour == 0
    assert now() < read().next_run_at <= now() + 24 * HOUR
    assert not read().is_declared


def make_many() -> None:
    Schedule.objects.bulk_create([Schedule(name="report", task_path=tasks.noop.path, cron="@hourly")])


def load_a_fixture() -> None:
    fields = {"name": "report", "task_path": tasks.noop.path, "cron": "@hourly"}
    for loaded in deserialize("python", [{"model": "django_jobs.schedule", "pk": 1, "fields": fields}]):
        loaded.save()


@pytest.mark.parametrize("make", [make_many, load_a_fixture])
def test_rows_that_are_not_saved_one_by_one_run_too(make: Callable[[], None]) -> None:
    before = now()

    make()

    schedule = read()
    assert schedule.next_run_at is not None
    assert before < schedule.next_run_at <= before + HOUR + timedelta(minutes=1)
    assert Schedule.objects.fire_due(schedule.next_run_at) == 1


def test_an_existing_schedule_stays_as_it_is_or_takes_what_is_given() -> None:
    Schedule.objects.declare("report", **NOOP, jitter=5)

    left = Schedule.objects.declare("report", task=tasks.add, args=[1], cron="@hourly")
    changed = Schedule.objects.declare("report", upsert=True, priority=5, jitter=timedelta(minutes=2))

    assert (left.task_path, left.cron) == (tasks.noop.path, "0 3 * * *")
    assert (changed.priority, changed.jitter, changed.cron) == (5, 120.0, "0 3 * * *")


BAD = [
    ({"task": "gone.task"}, "names no task"),
    ({"task": "tests.tasks.nop"}, "Did you mean"),
    ({"task": 5}, "path of a declared task"),
    ({"cron": "0 0 31 2 *"}, "never occur"),
    ({"cron": "0 3 * *"}, "4 fields"),
    ({"cron": ""}, "one of the two"),
    ({"cron": 5}, "text"),
    ({"timezone": "Europe/Pariss"}, "no time zone"),
    ({"timezone": "../../etc/passwd"}, "no time zone"),
    ({"timezone": None}, "time zone"),
    ({"run_at": FAR}, "goes without cron"),
    ({"cron": "", "run_at": "tomorrow"}, "must be a datetime"),
    ({"cron": "", "run_at": datetime(2099, 1, 1)}, "has no time zone"),
    ({"start_at": datetime(1, 1, 1, tzinfo=UTC)}, "between 1970 and 9000"),
    ({"end_at": datetime(9999, 12, 31, tzinfo=UTC)}, "between 1970 and 9000"),
    ({"start_at": FAR, "end_at": FAR - HOUR}, "is before start_at"),
    ({"jitter": -1}, "between 0 s"),
    ({"jitter": float("nan")}, "between 0 s"),
    ({"jitter": "5"}, "number of seconds"),
    ({"jitter": timedelta(days=2)}, "a day"),
    ({"overlap": "maybe"}, "'allow', 'skip', 'replace'"),
    ({"catch_up": "some"}, "'none', 'latest', 'all'"),
    ({"catch_up_limit": 0}, "between 1 and 1000"),
    ({"catch_up_limit": True}, "between 1 and 1000"),
    ({"priority": 101}, "between -100 and 100"),
    ({"queue_name": "x" * 101}, "100 characters"),
    ({"enabled": "yes"}, "True or False"),
    ({"args": "abc"}, "must be a list"),
    ({"kwargs": [("a", 1)]}, "arguments by name"),
    ({"args": [object()]}, "cannot be stored as JSON"),
    ({"args": [float("nan")]}, "not a JSON number"),
    ({"args": ["a\x00"]}, "NUL"),
    ({"task": tasks.add, "args": []}, "missing a required argument: 'a'"),
    ({"task": tasks.add, "args": [1, 2, 3]}, "too many positional arguments"),
    ({"task": tasks.add, "kwargs": {"a": 1, "c": 2}}, "It takes a, b"),
    ({"task": tasks.tell_attempt, "kwargs": {"context": 1}}, "multiple values|cannot be called"),
    ({"corn": "* * * * *"}, "no setting 'corn'. Did you mean 'cron'"),
    ({"next_run_at": FAR}, "no setting 'next_run_at'"),
]


@pytest.mark.parametrize(("given", "reason"), BAD, ids=lambda value: str(value)[:40])
def test_what_cannot_work_is_refused_and_nothing_is_written(given: dict[str, Any], reason: str) -> None:
    Schedule.objects.declare("other", **NOOP)

    with pytest.raises(InvalidOption, match=reason):
        Schedule.objects.declare("report", **(NOOP | given))
    with pytest.raises(InvalidOption, match=reason):
        Schedule.objects.declare("other", upsert=True, **(NOOP | given))

    assert list(Schedule.objects.values_list("name", "cron")) == [("other", "0 3 * * *")]


@pytest.mark.parametrize("name", ["", " ", "x" * 256, "a\x00", 5, None])
def test_a_name_that_cannot_be_stored_is_refused(name: Any) -> None:
    with pytest.raises(InvalidOption, match="name of a schedule"):
        Schedule.objects.declare(name, **NOOP)


def test_a_task_with_a_context_takes_the_arguments_after_it() -> None:
    schedule = Schedule.objects.declare("report", task=tasks.tell_attempt, args=["weather"], cron="@daily")

    assert schedule.problem == ""


def test_a_queue_that_the_backend_does_not_have_is_refused(settings: Any) -> None:
    settings.TASKS = {"default": {"BACKEND": "django_jobs.backend.JobsBackend", "QUEUES": ["default"]}}

    with pytest.raises(InvalidOption, match="queue_name cannot be used"):
        Schedule.objects.declare("report", **NOOP, queue_name="mail")


def test_a_form_tells_each_problem_by_its_field() -> None:
    schedule = Schedule(name="report", task_path="gone", cron="* *", timezone="Mars", start_at=FAR, end_at=FAR - HOUR)

    with pytest.raises(ValidationError) as caught:
        schedule.full_clean()

    assert set(caught.value.message_dict) == {"task_path", "cron", "timezone", "end_at"}


def test_empty_fields_of_a_form_are_the_defaults() -> None:
    schedule = Schedule(name="report", task_path=tasks.noop.path, cron=" @daily", args=None, kwargs=None, jitter=None)

    schedule.full_clean()

    assert (schedule.args, schedule.kwargs, schedule.jitter, schedule.cron) == ([], {}, 0, "@daily")


def test_a_one_off_is_put_into_words_in_its_zone() -> None:
    assert Schedule(run_at=FAR, timezone="Asia/Tokyo").words == "Once, at 2099-05-01 21:00:00 JST"
    assert Schedule(run_at=FAR, timezone="Mars").words == "Once, at 2099-05-01 12:00:00 UTC"


def test_a_form_refuses_a_time_that_has_passed_but_not_the_one_that_ran() -> None:
    past = Schedule(name="past", task_path=tasks.noop.path, run_at=now() - HOUR, timezone="UTC")
    ran = Schedule.objects.declare("ran", task=tasks.noop, run_at=now() - HOUR)

    with pytest.raises(ValidationError, match="has passed"):
        past.full_clean()
    ran.full_clean()


# Changing


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cron", "7 7 7 7 *"),
        ("timezone", "Asia/Kolkata"),
        ("start_at", datetime(2097, 1, 1, tzinfo=UTC)),
        ("end_at", datetime(2001, 1, 1, tzinfo=UTC)),
    ],
)
def test_changing_when_it_runs_finds_the_next_run_anew(name: str, value: Any) -> None:
    Schedule.objects.declare("report", **NOOP, timezone="UTC")
    Schedule.objects.update(next_run_at=FAR)
    schedule = read()

    setattr(schedule, name, value)
    schedule.save()

    assert read().next_run_at == next(read().moments_after(now()), None) != FAR


@pytest.mark.parametrize(
    ("name", "value"),
    [("args", [1]), ("jitter", 9.0), ("overlap", "skip"), ("priority", 3), ("queue_name", "mail"), ("name", "other")],
)
def test_changing_anything_else_leaves_the_next_run(name: str, value: Any) -> None:
    Schedule.objects.declare("report", **NOOP)
    Schedule.objects.update(next_run_at=FAR)
    schedule = read()

    setattr(schedule, name, value)
    schedule.save()

    schedule.refresh_from_db()
    assert (schedule.next_run_at, getattr(schedule, name)) == (FAR, value)


def save_cron(cron: str) -> None:
    schedule = read()
    # This is not written, and changes nothing.
    schedule.cron, schedule.timezone = cron, "Mars"
    schedule.save(update_fields=["cron"])


def create_or_change_cron(cron: str) -> None:
    Schedule.objects.update_or_create(name="report", defaults={"cron": cron})


@pytest.mark.parametrize("change", [save_cron, create_or_change_cron])
def test_changing_one_column_finds_the_next_run_anew_too(change: Callable[[str], None]) -> None:
    Schedule.objects.declare("report", **NOOP, timezone="UTC")
    Schedule.objects.update(next_run_at=FAR, fault="bad")

    change("7 7 7 7 *")

    assert read().next_run_at == next(read().moments_after(now())) != FAR
    assert (read().cron, read().timezone, read().problem) == ("7 7 7 7 *", "UTC", "")


def test_changing_a_column_that_says_nothing_of_when_it_runs_writes_that_column_only() -> None:
    schedule = Schedule.objects.declare("report", **NOOP)
    Schedule.objects.update(next_run_at=FAR, jitter=5)

    schedule.cron, schedule.priority = "@hourly", 3
    schedule.save(update_fields=["priority"])

    assert (read().next_run_at, read().cron, read().jitter, read().priority) == (FAR, "0 3 * * *", 5, 3)


def test_an_edit_from_an_outdated_page_keeps_what_firing_has_counted() -> None:
    outdated = Schedule.objects.declare("report", **NOOP | {"cron": "* * * * *"})
    moment = outdated.next_run_at
    Schedule.objects.fire_due(moment + HOUR)

    outdated.priority = 5
    outdated.save()

    assert (read().priority, read().next_run_at) == (5, moment + HOUR + MINUTE)
    assert (read().missed, read().last_run_at) == (60, moment + HOUR)


def test_a_one_off_gets_another_time() -> None:
    schedule = Schedule.objects.declare("report", task=tasks.noop, run_at=FAR)
    Schedule.objects.fire_due(FAR)
    schedule = read()

    schedule.run_at = FAR + HOUR
    schedule.save()

    assert read().next_run_at == FAR + HOUR


@pytest.fixture
def rival(transactional_db: None) -> Iterator[Rival]:
    with Rival() as rival:
        yield rival


def change_cron() -> None:
    schedule = read()
    schedule.cron = "0 5 * * *"
    schedule.save()


def change_priority() -> None:
    schedule = read()
    schedule.priority = 5
    schedule.save()


def while_it_fires(rival: Rival, act: Callable[[], Any]) -> datetime:
    """Let somebody do this while a schedule fires and has not committed yet; return the moment."""
    moment = Schedule.objects.declare("report", **NOOP, timezone="UTC").next_run_at
    rival.begin()
    rival.run(Schedule.objects.fire_due, moment)
    with Rival() as other:
        done = other.start(act)
        wait_until_blocked()
        rival.commit()
        done.result(30)
    return moment


def test_an_edit_that_is_first_keeps_the_moment_from_firing(rival: Rival) -> None:
    moment = Schedule.objects.declare("report", **NOOP).next_run_at
    rival.begin()
    rival.run(change_cron)
    with Rival() as leader:
        fired = leader.start(Schedule.objects.fire_due, moment)
        let_pass(fired)

        rival.commit()

        assert fired.result(30) == 0
    assert not Job.objects.exists()
    assert read().next_run_at.hour == 5


def test_an_edit_at_the_moment_of_firing_waits_for_its_end(rival: Rival) -> None:
    moment = while_it_fires(rival, change_cron)

    assert Job.objects.get().scheduled_for == moment
    assert (read().next_run_at.hour, read().last_run_at) == (5, moment)


def test_an_edit_of_anything_else_at_the_moment_of_firing_leaves_the_next_run(rival: Rival) -> None:
    moment = while_it_fires(rival, change_priority)

    assert (read().priority, read().next_run_at) == (5, moment + 24 * HOUR)


def test_of_two_who_fire_at_once_one_does(rival: Rival) -> None:
    moment = Schedule.objects.declare("report", **NOOP).next_run_at
    rival.begin()
    first = rival.run(Schedule.objects.fire_due, moment)
    with Rival() as other:
        second = other.start(Schedule.objects.fire_due, moment)
        let_pass(second)
        rival.commit()
        assert (first, second.result(30)) == (1, 0)

    assert Job.objects.count() == 1


@pytest.mark.parametrize(
    "delete", [lambda: read().delete(), lambda: Schedule.objects.all().delete()], ids=["row", "set"]
)
def test_a_deletion_at_the_moment_of_firing_waits_for_its_end(rival: Rival, delete: Callable[[], Any]) -> None:
    moment = while_it_fires(rival, delete)

    assert not Schedule.objects.exists()
    assert (Job.objects.get().schedule, Job.objects.get().scheduled_for) == (None, moment)


def test_of_two_who_declare_at_once_both_get_the_same_row(rival: Rival, settings: Any) -> None:
    settings.DJANGO_JOBS = {"SCHEDULES": {"report": NOOP}}
    rival.begin()
    rival.run(Schedule.objects.declare_all)
    with Rival() as other:
        second = other.start(Schedule.objects.declare_all)
        wait_until_blocked()
        rival.commit()
        second.result(30)

    assert [schedule.is_declared for schedule in Schedule.objects.all()] == [True]


# Declared by code and settings


def by_night(day: int) -> None:
    """Do nothing, by night."""


def often() -> None:
    """Do nothing, often."""


@pytest.fixture
def declared() -> Iterator[Callable[..., Any]]:
    """Return a function that declares a function as a task for the time of the test."""
    made: list[Any] = []

    def declare_task(function: Callable[..., Any], **options: Any) -> Any:
        made.append(task(**options)(function))
        return made[-1]

    yield declare_task
    for each in made:
        withdraw(each)


@pytest.fixture
def nightly(declared: Callable[..., Any]) -> Any:
    """A task that declares its own schedule, beside another one."""
    declared(often, name="tests.often", cron="*/5 * * * *")
    cron = {"cron": "30 2 * * *", "timezone": "Europe/Paris", "args": [1]}
    return declared(by_night, name="tests.nightly", cron=cron)


def test_a_task_declares_a_schedule_of_its_own_name(nightly: Any) -> None:
    declare_known_schedules()

    [first, second] = Schedule.objects.all()
    assert (first.name, first.task_path, first.cron) == ("tests.nightly", "tests.nightly", "30 2 * * *")
    assert (first.timezone, first.args, first.is_declared) == ("Europe/Paris", [1], True)
    assert (second.name, second.cron, second.timezone) == ("tests.often", "*/5 * * * *", "UTC")
    assert first.next_run_at is not None


def declare(settings: Any, **schedules: Any) -> None:
    """Deploy code that declares these schedules."""
    settings.DJANGO_JOBS = {"SCHEDULES": schedules}
    declare_known_schedules()


def test_the_settings_win_over_what_a_task_says_of_itself(settings: Any, nightly: Any) -> None:
    declare(settings, **{"tests.nightly": {"task": nightly, "args": [2], "cron": "@daily"}})

    assert (read("tests.nightly").cron, read("tests.nightly").args) == ("@daily", [2])


def test_a_deploy_adds_changes_and_withdraws(settings: Any) -> None:
    declare(settings, kept=NOOP, changed=NOOP | {"jitter": 9}, gone=NOOP)
    Schedule.objects.declare("by hand", **NOOP)
    Schedule.objects.update(next_run_at=FAR)
    Schedule.objects.run_now("gone")

    declare(settings, kept=NOOP, changed=NOOP | {"cron": "0 4 * * *"}, new=NOOP)

    assert read("kept").next_run_at == read("by hand").next_run_at == FAR
    # What is no longer given is the default's again.
    assert (read("changed").cron, read("changed").jitter, read("changed").next_run_at == FAR) == ("0 4 * * *", 0, False)
    assert (read("gone").next_run_at, read("gone").withdrawn_at is None) == (None, False)
    assert "declares it any more" in read("gone").problem
    assert Job.objects.get().schedule == read("gone")
    assert read("new").is_declared
    assert Schedule.objects.fire_due(FAR) == 4


def test_a_schedule_that_is_declared_again_runs_again_from_now_on(settings: Any) -> None:
    declare(settings, report=NOOP)
    declare(settings)

    declare(settings, report=NOOP)

    assert (read().problem, read().withdrawn_at) == ("", None)
    assert read().next_run_at > now()


@pytest.mark.parametrize("upsert", [False, True])
def test_what_code_declares_no_more_is_whoevers_declares_it_next(settings: Any, upsert: bool) -> None:
    declare(settings, report=NOOP)
    declare(settings)

    Schedule.objects.declare("report", upsert, task=tasks.noop, cron="0 4 * * *")
    declare_known_schedules()

    assert (read().cron, read().problem, read().is_declared) == ("0 4 * * *", "", False)
    assert now() < read().next_run_at <= now() + 24 * HOUR


def test_a_time_that_nobody_can_read_keeps_no_worker_from_starting(settings: Any) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no such times")
    declare(settings, report=NOOP, later=NOOP)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_jobs_schedule SET last_run_at = 'infinity' WHERE name = 'report'")

    declare(settings, report=NOOP | {"jitter": 5}, later=NOOP | {"jitter": 5})

    assert "cannot be read" in Schedule.objects.values_list("fault", flat=True).get(name="report")
    assert read("later").jitter == 5


def test_a_deploy_without_changes_writes_nothing(settings: Any) -> None:
    declare(settings, report=NOOP | {"args": (1,), "jitter": timedelta(seconds=5), "start_at": FAR})

    with CaptureQueriesContext(connection) as captured:
        declare_known_schedules()

    changes = [query["sql"] for query in captured if query["sql"].startswith(("UPDATE", "INSERT"))]
    # But for the search of withdrawn ones.
    assert len(changes) == 1
    assert "withdrawn_at" in changes[0]


def test_a_pause_survives_deploys_and_so_does_what_code_does_not_give(settings: Any) -> None:
    declare(settings, report=NOOP)
    Schedule.objects.pause("report", reason="broken")
    schedule = read()
    schedule.priority = 7
    schedule.save()

    declare(settings, report=NOOP | {"cron": "0 4 * * *"})
    declare(settings)
    declare(settings, report=NOOP | {"enabled": True})

    assert (read().enabled, read().paused_reason, read().priority) == (False, "broken", 7)


def test_what_a_person_changed_of_what_code_gives_is_the_code_s_again(settings: Any) -> None:
    declare(settings, report=NOOP)
    Schedule.objects.declare("report", upsert=True, cron="@hourly")

    declare_known_schedules()

    assert read().cron == "0 3 * * *"


def test_a_schedule_may_be_declared_as_paused_at_first(settings: Any) -> None:
    declare(settings, report=NOOP | {"enabled": False})
    first = read().enabled
    Schedule.objects.resume("report")

    declare_known_schedules()

    assert (first, read().enabled) == (False, True)


def test_one_that_a_person_made_is_taken_over(settings: Any) -> None:
    Schedule.objects.declare("report", **NOOP, priority=3)

    declare(settings, report=NOOP | {"cron": "@hourly"})

    assert (read().is_declared, read().cron, read().priority) == (True, "@hourly", 3)


def test_a_one_off_of_a_person_that_code_takes_over_follows_its_expression(settings: Any) -> None:
    Schedule.objects.declare("report", task=tasks.noop, run_at=FAR)
    Schedule.objects.declare("once", **NOOP)

    declare(settings, report=NOOP, once={"task": tasks.noop, "run_at": FAR})

    assert [(row.cron, row.run_at, row.problem) for row in (read(), read("once"))] == [
        ("0 3 * * *", None, ""),
        ("", FAR, ""),
    ]
    assert read("once").next_run_at == FAR


def test_what_a_person_has_set_and_new_code_does_not_go_with_spoils_its_row_only(settings: Any) -> None:
    declare(settings, report=NOOP, other=NOOP)
    Schedule.objects.declare("report", upsert=True, end_at=FAR, args=[5])

    declare(settings, report=NOOP | {"start_at": FAR + HOUR}, other=NOOP | {"cron": "0 4 * * *"})
    Schedule.objects.update(next_run_at=FAR)
    fired = Schedule.objects.fire_due(FAR)

    assert "end_at is before start_at" in read().problem
    assert (read().args, read("other").cron, read("other").problem) == ([5], "0 4 * * *", "")
    assert (fired, Job.objects.get().schedule) == (1, read("other"))


@pytest.mark.parametrize(("given", "reason"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_declaration_is_an_error_of_the_check_and_of_a_start(
    settings: Any, given: dict[str, Any], reason: str
) -> None:
    settings.DJANGO_JOBS = {"SCHEDULES": {"a": NOOP, "report": NOOP | given}}

    with CaptureQueriesContext(connection) as captured:
        [message] = check_settings()
    with pytest.raises(InvalidOption, match=reason) as caught:
        declare_known_schedules()

    assert (message.id, len(captured)) == ("django_jobs.E012", 0)
    assert str(caught.value) in message.msg
    assert not Schedule.objects.exists()


def test_a_bad_expression_of_a_task_is_an_error_of_the_check(declared: Callable[..., Any]) -> None:
    declared(often, name="tests.bad", cron="0 0 31 2 *")

    [message] = check_settings()

    assert message.id == "django_jobs.E012"
    assert "@task(cron=...)" in message.msg
    assert "tests.bad" in message.msg


def test_good_declarations_are_clean(settings: Any, nightly: Any) -> None:
    settings.DJANGO_JOBS = {"SCHEDULES": {"report": NOOP, "once": {"task": tasks.noop, "run_at": FAR}}}

    assert check_settings() == []


@pytest.mark.parametrize(
    ("schedules", "problem"),
    [
        (["report"], "must be a dict"),
        ("report", "must be a dict"),
        ({5: {}}, "names of schedules as keys; 5 is none"),
        ({"report": "@daily"}, r"\['report'\] must be a dict of settings"),
    ],
)
def test_schedules_of_another_form_are_refused(settings: Any, schedules: Any, problem: str) -> None:
    settings.DJANGO_JOBS = {"SCHEDULES": schedules}

    with pytest.raises(InvalidOption, match=problem):
        conf.schedules()

    assert [message.id for message in check_settings()] == ["django_jobs.E003"]


# Without time zones


def test_a_project_without_time_zones_has_schedules_too(settings: Any) -> None:
    settings.USE_TZ = False

    schedule = Schedule.objects.declare("report", **NOOP | {"cron": "* * * * *"}, start_at=datetime(2098, 1, 1))
    schedule = read()
    moment = schedule.next_runs()[0]
    fired = Schedule.objects.fire_due(moment)

    assert moment == datetime(2098, 1, 1, tzinfo=UTC)
    assert (fired, Job.objects.get().scheduled_for) == (1, datetime(2098, 1, 1))
    assert read().next_run_at == datetime(2098, 1, 1, 0, 1)
