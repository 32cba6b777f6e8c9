"""Schedules in the admin: the list, the form and its reasons, what runs next and ran last, the actions."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_jobs.admin import schedule_runs
from django_jobs.models import Job, Schedule
from django_jobs.states import JobState

from .unique_tasks import ship
from .visitor import JOBS, SCHEDULES, act, buttons_of, log, messages_of, press, rows_of, staff, superuser, text_of

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SCRIPT = "<script>alert(1)</script>"
GONE = "shop.tasks.gone"

FORM = {
    "name": "nightly",
    "task_path": "tests.tasks.add",
    "args": "[1]",
    "kwargs": '{"b": 2}',
    "cron": "30 2 * * *",
    "timezone": "Europe/Paris",
    "jitter": "30",
    "overlap": "skip",
    "catch_up": "all",
    "catch_up_limit": "3",
    "queue_name": "",
    "priority": "7",
    "start_at_0": "2026-01-02",
    "start_at_1": "03:04:05",
    "end_at_0": "2100-01-02",
    "end_at_1": "03:04:05",
}
STORED = {
    "name": "nightly",
    "task_path": "tests.tasks.add",
    "args": [1],
    "kwargs": {"b": 2},
    "cron": "30 2 * * *",
    "run_at": None,
    "timezone": "Europe/Paris",
    "jitter": 30.0,
    "overlap": "skip",
    "catch_up": "all",
    "catch_up_limit": 3,
    "queue_name": "",
    "priority": 7,
    "start_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "end_at": datetime(2100, 1, 2, 3, 4, 5, tzinfo=UTC),
}
PREVIEW = f"{SCHEDULES}preview/"
COLUMNS = ("name", "status", "expression", "next", "last", "outcomes", "late", "task")


@pytest.fixture
def browser(db: None) -> Client:
    return superuser()


def schedule(name: str = "nightly", **settings: Any) -> Schedule:
    return Schedule.objects.declare(name, **{"task_path": "tests.tasks.noop", "cron": "30 2 * * *"} | settings)


def listed(browser: Client, **filters: str) -> dict[str, dict[str, str]]:
    """Return the cells of each schedule by its name and theirs."""
    rows = [dict(zip(COLUMNS, cells, strict=True)) for cells in rows_of(browser.get(SCHEDULES, filters))]
    return {row["name"]: row for row in rows}


def page(row: Schedule) -> str:
    return f"{SCHEDULES}{row.pk}/change/"


def saved(row: Schedule) -> Schedule:
    return Schedule.objects.get(pk=row.pk)


def settings_of(name: str = "nightly") -> dict[str, Any]:
    return Schedule.objects.values(*STORED).get(name=name)


def run_of(row: Schedule, scheduled_for: datetime, state: JobState = JobState.READY, **columns: Any) -> Job:
    """Return a job of the schedule as it looks after a run; written past the verbs, because times are given."""
    job = Job.objects.create(task_path=row.task_path, schedule=row, scheduled_for=scheduled_for, **columns)
    Job.objects.filter(pk=job.pk).update(state=state)
    return job


def values_on(response: Any) -> dict[str, Any]:
    """Return what the fields of the form hold, as a browser sends them back."""
    form = response.context["adminform"].form
    sent = {}
    for name in form.fields:
        value = form[name].value()
        for number, widget in enumerate(getattr(form.fields[name].widget, "widgets", [None])):
            part = value if widget is None else form.fields[name].widget.decompress(value)[number]
            sent[name if widget is None else f"{name}_{number}"] = "" if part is None else str(part)
    return sent


# The list


def test_the_list_shows_when_a_schedule_runs_and_how_its_last_runs_ended(browser: Client) -> None:
    row = schedule(timezone="Europe/Paris")
    Schedule.objects.update(next_run_at=datetime(2100, 1, 2, 1, 30, tzinfo=UTC), last_run_at=NOON, late=2)
    states = [
        JobState.READY,
        JobState.RUNNING,
        JobState.FAILED,
        JobState.SUCCEEDED,
        JobState.CANCELLED,
        JobState.FAILED,
    ]
    jobs = [run_of(row, NOON - timedelta(hours=hours), state) for hours, state in enumerate(states)]

    response = browser.get(SCHEDULES)

    [cells] = [dict(zip(COLUMNS, cells, strict=True)) for cells in rows_of(response)]
    assert cells["status"] == "enabled"
    assert cells["task"] == "tests.tasks.noop"
    assert cells["expression"] == "30 2 * * * At 02:30 (Europe/Paris)"
    assert cells["next"].startswith("2100-01-02 01:30:00 in ")
    assert cells["last"] == "2026-11-20 12:00:00"
    # The newest first, and five at the most.
    assert cells["outcomes"] == "ready running failed succeeded cancelled"
    assert cells["late"] == "2"
    links = [f'href="{JOBS}{job.pk}/change/"' in response.content.decode() for job in jobs]
    assert links == [True] * 5 + [False]


def test_the_list_shows_what_a_schedule_is_up_to(browser: Client) -> None:
    schedule("on")
    schedule("off")
    schedule("once", cron="", run_at=datetime(2100, 1, 2, 3, 4, tzinfo=UTC))
    schedule("over")
    schedule("broken")
    Schedule.objects.pause("off", "The printer is away")
    Schedule.objects.filter(name="over").update(next_run_at=None)
    Schedule.objects.filter(name="broken").update(task_path=GONE)

    rows = listed(browser)

    assert {name: row["status"].split()[0] for name, row in rows.items()} == {
        "on": "enabled",
        "off": "paused",
        "once": "enabled",
        "over": "ended",
        "broken": "problem",
    }
    assert rows["off"]["status"] == "paused The printer is away"
    assert rows["off"]["next"] == "-"
    assert GONE in rows["broken"]["status"]
    assert rows["once"]["expression"] == "once, at 2100-01-02 03:04:00"
    assert rows["on"]["outcomes"] == "-"


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"status": "enabled"}, {"on", "broken"}),
        ({"status": "paused"}, {"off"}),
        ({"status": "problem"}, {"broken"}),
        ({"task_path": "tests.tasks.noop"}, {"on", "off"}),
        ({"is_declared__exact": "1"}, {"off"}),
        ({"q": "bro"}, {"broken"}),
    ],
)
def test_the_list_is_filtered(browser: Client, filters: dict[str, str], names: set[str]) -> None:
    for name in ("on", "off", "broken"):
        schedule(name)
    Schedule.objects.pause("off")
    Schedule.objects.filter(name="off").update(is_declared=True)
    Schedule.objects.filter(name="broken").update(task_path=GONE)

    assert set(listed(browser, **filters)) == names


@pytest.mark.parametrize(
    "damage",
    [
        {"task_path": GONE},
        {"timezone": "Mars/Olympus"},
        {"timezone": ""},
        {"cron": "every day"},
        {"cron": "0 0 31 2 *"},
        {"cron": "", "run_at": None},
        {"args": {"not": "a list"}},
        {"kwargs": ["not a dict"]},
        {"jitter": -5},
        {"overlap": "never"},
        {"catch_up": "some"},
        {"start_at": NOON, "end_at": NOON - timedelta(days=1)},
    ],
)
def test_a_row_that_has_become_bad_is_shown_with_its_problem_beside_the_others(
    browser: Client, damage: dict[str, Any]
) -> None:
    schedule("good")
    bad = schedule("bad")
    Schedule.objects.filter(pk=bad.pk).update(**damage)

    rows = listed(browser)
    told = text_of(browser.get(page(bad)))

    assert rows["good"]["status"] == "enabled"
    assert rows["bad"]["status"].startswith("problem ")
    assert saved(bad).problem in told
    assert "Run now" not in buttons_of(browser.get(page(bad)))


def test_more_schedules_and_runs_take_no_more_queries(browser: Client) -> None:
    run_of(schedule(), NOON)
    with CaptureQueriesContext(connection) as few:
        browser.get(SCHEDULES)
    for number in range(7):
        row = schedule(f"schedule {number}")
        for hours in range(7):
            run_of(row, NOON - timedelta(hours=hours))

    with CaptureQueriesContext(connection) as many:
        browser.get(SCHEDULES)

    assert len(many) == len(few)


# The form


def test_a_schedule_is_added_with_every_setting(browser: Client) -> None:
    told = messages_of(browser.post(f"{SCHEDULES}add/", FORM, follow=True))

    assert settings_of() == STORED
    assert "was added successfully" in told[0]
    assert len(log()) == 1
    row = Schedule.objects.get()
    assert (row.enabled, row.is_declared) == (True, False)
    assert row.next_run_at is not None
    assert row.next_run_at > timezone.now()


def test_arguments_are_shown_as_they_were_typed_and_then_as_they_are(browser: Client) -> None:
    typed = '[ "é",\n  {"a": [1]} ]'

    refused = browser.post(f"{SCHEDULES}add/", FORM | {"args": typed, "kwargs": "{}", "priority": "101"})
    browser.post(f"{SCHEDULES}add/", FORM | {"args": typed, "kwargs": "{}"})

    assert refused.context["adminform"].form["args"].value() == typed
    assert values_on(browser.get(page(Schedule.objects.get())))["args"] == '["é", {"a": [1]}]'


def test_a_one_off_is_added(browser: Client) -> None:
    browser.post(f"{SCHEDULES}add/", FORM | {"cron": "", "run_at_0": "2099-01-02", "run_at_1": "03:04:05"})

    row = Schedule.objects.get()
    assert (row.cron, row.next_run_at) == ("", datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC))


def test_a_page_that_is_sent_back_as_it_is_changes_nothing(browser: Client) -> None:
    browser.post(f"{SCHEDULES}add/", FORM)
    row = Schedule.objects.get()
    before = Schedule.objects.values().get()

    browser.post(page(row), values_on(browser.get(page(row))))

    assert Schedule.objects.values().get() == before
    assert log()[-1] == ("nightly", "No fields changed.")


def test_a_new_expression_moves_the_next_run(browser: Client) -> None:
    browser.post(f"{SCHEDULES}add/", FORM)
    row = Schedule.objects.get()

    browser.post(page(row), FORM | {"cron": "15 7 1 1 *", "timezone": "UTC", "jitter": "0"})

    next_run = saved(row).next_run_at
    assert next_run is not None
    assert (next_run.month, next_run.day, next_run.hour, next_run.minute) == (1, 1, 7, 15)
    assert log()[-1][0] == "nightly"


def test_a_pause_and_a_firing_of_the_meantime_survive_the_saving_of_the_settings(browser: Client) -> None:
    browser.post(f"{SCHEDULES}add/", FORM)
    row = Schedule.objects.get()
    sent = values_on(browser.get(page(row)))

    def pause_in_between(execute: Any, sql: str, *arguments: Any) -> Any:
        # The form asks for the names of queues when the row has been read and not been written.
        if 'FROM "django_jobs_queue"' in sql and saved(row).enabled:
            Schedule.objects.pause("nightly", "Strike")
            Schedule.objects.update(late=5, last_run_at=NOON)
        return execute(sql, *arguments)

    with connection.execute_wrapper(pause_in_between):
        browser.post(page(row), sent | {"priority": "9"})

    after = saved(row)
    assert (after.enabled, after.paused_reason, after.priority) == (False, "Strike", 9)
    assert (after.late, after.last_run_at) == (5, NOON)


def test_the_form_offers_declared_tasks_and_known_zones_only(browser: Client) -> None:
    form = browser.get(f"{SCHEDULES}add/").context["adminform"].form

    tasks = [value for value, _label in form.fields["task_path"].choices]
    zones = [value for value, _label in form.fields["timezone"].choices]
    assert "tests.tasks.add" in tasks
    assert "orders.receipt" in tasks
    assert GONE not in tasks
    assert len(tasks) == len(set(tasks))
    assert {"UTC", "Europe/Paris", "Australia/Lord_Howe"} <= set(zones)
    assert form["timezone"].value() == "UTC"


def test_an_empty_form_needs_no_more_than_a_name_a_task_and_a_time(browser: Client) -> None:
    sent = values_on(browser.get(f"{SCHEDULES}add/"))

    browser.post(f"{SCHEDULES}add/", sent | {"name": "x", "task_path": "tests.tasks.noop", "cron": "@daily"})

    row = Schedule.objects.get()
    assert (row.args, row.kwargs, row.priority, row.jitter) == ([], {}, None, 0)


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ({"name": ""}, ["This field is required"]),
        ({"name": "x" * 256}, ["at most 255 characters"]),
        ({"task_path": GONE}, [GONE]),
        ({"task_path": "os.system"}, ["os.system"]),
        ({"task_path": ""}, ["This field is required"]),
        ({"args": "[1", "kwargs": "{}"}, ["Enter a valid JSON"]),
        ({"args": "{}"}, ["list"]),
        ({"kwargs": "[]"}, ["kwargs"]),
        ({"args": "[1, 2, 3]", "kwargs": "{}"}, ["too many positional arguments"]),
        ({"args": "[]", "kwargs": "{}"}, ["'a'"]),
        ({"kwargs": '{"c": 1}'}, ["'c'"]),
        ({"kwargs": '{"a": 1}'}, ["'a'"]),
        ({"args": '["\\u0000"]'}, ["NUL"]),
        ({"args": '["\\ud800"]'}, ["lone surrogate"]),
        # Some Pythons read it, and it is too deep to be stored; others do not.
        ({"args": "[" * 5000 + "]" * 5000}, []),
        ({"args": f"[{'9' * 5000}]"}, ["Enter a valid JSON"]),
        ({"args": "[1e999]"}, ["inf is not a JSON number"]),
        ({"cron": "every day"}, ["every day"]),
        ({"cron": "0 0 31 2 *"}, ["can never occur"]),
        ({"cron": "61 * * * *"}, ["61"]),
        ({"cron": "* * * *"}, ["4 fields"]),
        ({"cron": "@reboot"}, ["@reboot"]),
        ({"cron": ""}, ["cron"]),
        ({"run_at_0": "2099-01-02", "run_at_1": "03:04:05"}, ["run_at"]),
        ({"timezone": "Mars/Olympus"}, ["Mars/Olympus"]),
        ({"timezone": "../../etc/passwd"}, ["passwd"]),
        ({"end_at_0": "2025-01-02"}, ["end"]),
        ({"jitter": "-1"}, ["jitter"]),
        ({"jitter": "nan"}, ["number"]),
        ({"overlap": "never"}, ["never"]),
        ({"catch_up": "some"}, ["some"]),
        ({"catch_up_limit": "0"}, ["1"]),
        ({"priority": "101"}, ["100"]),
        ({"priority": "first"}, ["whole number"]),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(
    browser: Client, fields: dict[str, str], reasons: list[str]
) -> None:
    response = browser.post(f"{SCHEDULES}add/", FORM | fields)

    assert response.status_code == 200
    errors = response.context["adminform"].form.errors
    told = json.dumps(errors.get_json_data())
    assert all(reason in told for reason in reasons), told
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"args": "[1"}, {"args"}),
        ({"task_path": GONE, "args": "[1, 2, 3]"}, {"task_path"}),
        ({"cron": "", "run_at_0": "tomorrow", "run_at_1": "03:04:05"}, {"run_at"}),
        ({"cron": "every day"}, {"cron"}),
        ({"overlap": "never"}, {"overlap"}),
        ({"args": "[1", "jitter": "-1"}, {"args", "jitter"}),
    ],
)
def test_no_field_is_blamed_for_another(browser: Client, fields: dict[str, str], blamed: set[str]) -> None:
    response = browser.post(f"{SCHEDULES}add/", FORM | fields)

    errors = response.context["adminform"].form.errors
    assert set(errors) == blamed
    assert [len(errors[name]) for name in blamed] == [1] * len(blamed)


def test_a_name_that_another_schedule_has_is_refused(browser: Client) -> None:
    schedule()

    response = browser.post(f"{SCHEDULES}add/", FORM)

    assert "already exists" in text_of(response)
    assert Schedule.objects.count() == 1


def test_a_task_that_is_gone_stays_in_the_form_and_is_refused_with_the_reason(browser: Client) -> None:
    row = schedule()
    Schedule.objects.update(task_path=GONE)
    response = browser.get(page(row))

    answer = browser.post(page(row), values_on(response) | {"priority": "3"})

    assert f'<option value="{GONE}" selected>' in response.content.decode()
    assert GONE in str(answer.context["adminform"].form.errors)
    assert saved(row).priority is None


# What runs next


def test_the_page_shows_the_words_and_the_next_five_runs_in_the_schedules_zone(browser: Client) -> None:
    row = schedule(cron="30 2 1 7 *", timezone="America/New_York")

    text = text_of(browser.get(page(row)))

    year = timezone.now().year
    assert "At 02:30, on day 1 of the month, only in July" in text
    shown = [f"{year + offset}-07-01 02:30:00 EDT" in text for offset in range(1, 5)]
    assert shown == [True] * 4


def test_a_refused_form_still_shows_the_words_and_the_next_runs_of_what_was_typed(browser: Client) -> None:
    row = schedule()

    added = text_of(browser.post(f"{SCHEDULES}add/", FORM | {"priority": "101", "name": "new"}))
    changed = text_of(browser.post(page(row), FORM | {"cron": "15 7 * * *", "priority": "101"}))

    assert "At 02:30" in added
    assert added.count("02:30:00 CE") == 5
    assert "At 07:15" in changed
    assert "Status: enabled" in changed
    assert changed.count("07:15:00 CE") == 5


def test_a_refused_expression_has_no_next_runs_and_harms_nothing(browser: Client) -> None:
    row = schedule()

    text = text_of(browser.post(page(row), FORM | {"cron": "0 0 31 2 *"}))

    assert "can never occur" in text
    assert "never runs again" not in text
    assert saved(row).cron == "30 2 * * *"


TYPED = {"cron": "15 7 * * *", "timezone": "Asia/Tokyo"}


def test_what_is_typed_is_shown_in_words_and_with_its_next_runs_before_it_is_saved(browser: Client) -> None:
    row = schedule()

    of_new = browser.get(PREVIEW, TYPED).json()
    of_changed = browser.get(PREVIEW, TYPED | {"id": row.pk, "end_at_0": "2020-01-01", "end_at_1": "00:00"}).json()

    assert (of_new["words"], of_new["problem"]) == ("At 07:15", "")
    assert of_new["runs"].count("07:15:00 JST") == 5
    assert (of_changed["words"], of_changed["runs"]) == ("At 07:15", "It never runs again.")
    assert settings_of()["cron"] == "30 2 * * *"
    assert Schedule.objects.count() == 1


def test_a_preview_is_of_what_code_owns_together_with_what_was_typed(browser: Client, settings: Any) -> None:
    settings.DJANGO_JOBS = {"SCHEDULES": {"report": {"task": "tests.tasks.noop", "cron": "30 2 * * *"}}}
    Schedule.objects.declare_all()
    row = Schedule.objects.get()

    found = browser.get(PREVIEW, TYPED | {"id": row.pk, "start_at_0": "2099-05-01", "start_at_1": "12:00"}).json()

    assert found["words"] == "At 02:30"
    assert "2099-05-02 02:30:00 JST" in found["runs"]


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ({"cron": "0 0 31 2 *"}, "can never occur"),
        ({"cron": "<b>"}, "&lt;b&gt;"),
        ({"timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"run_at_0": "2099-05-01", "run_at_1": "12:00"}, "goes without cron"),
        ({"start_at_0": "2099-05-01", "start_at_1": "noon"}, "Enter a valid time"),
    ],
)
def test_a_preview_says_what_is_wrong_with_the_times(browser: Client, typed: dict[str, str], problem: str) -> None:
    found = browser.get(PREVIEW, TYPED | typed).json()

    assert problem in found["problem"]
    assert found["runs"] == "-"


def test_who_may_not_save_has_no_preview(db: None) -> None:
    row = schedule()

    assert staff("view_schedule", "change_schedule").get(PREVIEW, TYPED).status_code == 403
    assert staff("view_schedule", "add_schedule", "view_job").get(PREVIEW, TYPED | {"id": row.pk}).status_code == 403


# What ran last


def test_runs_that_a_person_asked_for_are_among_the_last_ones(browser: Client) -> None:
    row = schedule()
    for days in range(5):
        run_of(row, timezone.now() - timedelta(days=days), JobState.FAILED)
    result = Schedule.objects.run_now("nightly")

    cells, text = listed(browser)["nightly"], text_of(browser.get(page(row)))

    assert cells["outcomes"] == "ready failed failed failed failed"
    assert f"{result.id} ready by hand" in text
    assert "by hand" in text_of(browser.get(f"{JOBS}{result.id}/change/"))


def test_the_page_shows_the_last_runs_with_their_times(browser: Client) -> None:
    row = schedule()
    started = NOON + timedelta(seconds=90)
    late = run_of(
        row,
        NOON,
        JobState.SUCCEEDED,
        started_at=started,
        last_attempted_at=started,
        finished_at=started + timedelta(minutes=2),
    )
    waiting = run_of(row, NOON + timedelta(days=1))

    text = text_of(browser.get(page(row)))

    assert f"{waiting.pk} ready 2026-11-21 12:00:00 - - -" in text
    assert f"{late.pk} succeeded 2026-11-20 12:00:00 2026-11-20 12:01:30 1 min 30 s 2 min 0 s" in text
    assert text.index("2026-11-21 12:00:00") < text.index("2026-11-20 12:00:00")


def test_only_the_newest_runs_are_shown(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_runs, "MOST_LAST", 2)
    row = schedule()
    for day in range(3):
        run_of(row, NOON + timedelta(days=day))

    text = text_of(browser.get(page(row)))

    assert "2026-11-22" in text
    assert "2026-11-20" not in text
    assert "Older runs are not shown." in text


def test_a_job_leads_to_its_schedule_and_says_what_it_was_scheduled_for(browser: Client) -> None:
    row = schedule()
    job = run_of(row, NOON)

    response = browser.get(f"{JOBS}{job.pk}/change/")

    assert f'href="{page(row)}"' in response.content.decode()
    assert "2026-11-20 12:00:00" in text_of(response)


def test_a_job_without_a_schedule_shows_none(browser: Client) -> None:
    job = Job.objects.create(task_path="tests.tasks.noop")

    assert browser.get(f"{JOBS}{job.pk}/change/").status_code == 200


# Declared in code


DECLARED = {"nightly": {"task": "tests.tasks.add", "cron": "30 2 * * *", "args": [1]}}


def declared_by_settings(settings: Any) -> Schedule:
    settings.DJANGO_JOBS = {"SCHEDULES": DECLARED}
    Schedule.objects.declare_all()
    return Schedule.objects.get(name="nightly")


def test_a_schedule_of_the_code_says_so_and_what_the_code_owns_is_not_edited(browser: Client, settings: Any) -> None:
    row = declared_by_settings(settings)

    response = browser.get(page(row))
    browser.post(page(row), FORM | {"cron": "15 7 * * *", "args": "[5]"})

    assert "the code or the settings, which own its task, positional arguments, cron expression:" in text_of(response)
    assert not {"task_path", "args", "cron", "name"} & set(response.context["adminform"].form.fields)
    assert (saved(row).cron, saved(row).args) == ("30 2 * * *", [1])
    assert (saved(row).timezone, saved(row).priority) == ("Europe/Paris", 7)


def test_an_edit_and_a_pause_survive_the_next_start_of_a_worker(browser: Client, settings: Any) -> None:
    row = declared_by_settings(settings)
    browser.post(page(row), FORM)
    press(browser, "pause", row, at=SCHEDULES, post="yes")

    Schedule.objects.declare_all()

    assert (saved(row).enabled, saved(row).priority, saved(row).timezone) == (False, 7, "Europe/Paris")


def test_what_is_wrong_with_a_field_of_the_code_is_said_on_the_page(browser: Client, settings: Any) -> None:
    row = declared_by_settings(settings)
    Schedule.objects.update(task_path=GONE)

    response = browser.post(page(row), FORM)

    assert GONE in str(response.context["adminform"].form.non_field_errors())
    assert saved(row).priority is None


def test_a_schedule_that_the_code_declares_no_more_says_so_and_may_be_edited(browser: Client, settings: Any) -> None:
    row = declared_by_settings(settings)
    settings.DJANGO_JOBS = {}
    Schedule.objects.declare_all()

    assert listed(browser)["nightly"]["status"].startswith("problem Nothing in the code")
    assert "cron" in browser.get(page(row)).context["adminform"].form.fields


# Actions


def test_a_schedule_is_run_now(browser: Client) -> None:
    row = schedule(task_path="tests.tasks.add", args=[1, 2])

    told = press(browser, "run_now", row, at=SCHEDULES)

    job = Job.objects.get()
    assert (job.task_path, job.args, job.schedule_id) == ("tests.tasks.add", [1, 2], row.pk)
    assert f"job {job.pk}" in told[0]
    assert log() == [("nightly", f"Run now: job {job.pk}.")]
    assert saved(row).next_run_at == row.next_run_at


def test_selected_schedules_are_run_now_and_one_that_cannot_says_why(browser: Client) -> None:
    good, bad = schedule("good"), schedule("bad")
    Schedule.objects.filter(pk=bad.pk).update(task_path=GONE)

    told = act(browser, "run_now", good, bad, at=SCHEDULES)

    assert Job.objects.get().schedule_id == good.pk
    assert [GONE in text for text in sorted(told)] == [False, True] or any(GONE in text for text in told)
    assert [name for name, _text in log()] == ["good"]


def test_a_schedule_whose_job_waits_already_is_not_run_twice(browser: Client) -> None:
    row = schedule(task_path=ship.path, args=[7])
    Schedule.objects.run_now("nightly")
    waiting = Job.objects.get()

    told = press(browser, "run_now", row, at=SCHEDULES)

    assert f"job {waiting.pk}</a> has its unique key" in told[0]
    assert Job.objects.count() == 1
    assert log() == []


def test_a_pause_asks_for_a_reason_first(browser: Client) -> None:
    row = schedule()

    response = browser.post(SCHEDULES, {"action": "pause", "_selected_action": row.pk})

    assert "Pause 1 schedule" in text_of(response)
    assert "Reason:" in text_of(response)
    assert saved(row).enabled


def test_schedules_are_paused_and_resumed_and_the_log_says_it(browser: Client) -> None:
    row, other = schedule(), schedule("hourly")
    Schedule.objects.pause("hourly", "Strike")

    paused = act(browser, "pause", row, other, at=SCHEDULES, post="yes", reason="The printer is away")
    buttons = buttons_of(browser.get(page(row)))
    reason = saved(row).paused_reason
    resumed = press(browser, "resume", row, at=SCHEDULES)

    assert paused == [
        "1 schedule was changed: Paused: The printer is away",
        "1 schedule was left as it was: it is in that state already.",
    ]
    assert (reason, buttons) == ("The printer is away", ["Run now", "Resume"])
    assert resumed == ["1 schedule was changed: Resumed."]
    assert saved(row).enabled
    assert saved(other).paused_reason == "Strike"
    assert log() == [("nightly", "Paused: The printer is away"), ("nightly", "Resumed.")]


def test_a_reason_that_is_too_long_is_refused(browser: Client) -> None:
    row = schedule()

    response = browser.post(f"{SCHEDULES}{row.pk}/act/pause/", {"post": "yes", "reason": "x" * 256})

    assert "at most 255 characters" in text_of(response)
    assert saved(row).enabled


def test_a_schedule_is_deleted_and_its_jobs_stay(browser: Client) -> None:
    row = schedule()
    job = run_of(row, NOON)

    browser.post(f"{SCHEDULES}{row.pk}/delete/", {"post": "yes"})

    assert not Schedule.objects.exists()
    assert Job.objects.get(pk=job.pk).schedule_id is None
    assert [name for name, _text in log()] == ["nightly"]


# Permissions


def test_who_may_only_view_schedules_can_do_nothing(browser: Client) -> None:
    row = schedule()
    viewer = staff("view_schedule")

    for name in ("run_now", "pause", "delete_selected"):
        act(viewer, name, row, at=SCHEDULES, post="yes")
    codes = [
        viewer.post(f"{SCHEDULES}{row.pk}/act/{name}/", {"post": "yes"}).status_code
        for name in ("run_now", "pause", "resume")
    ]
    codes += [
        viewer.post(page(row), FORM).status_code,
        viewer.post(f"{SCHEDULES}add/", FORM).status_code,
        viewer.post(f"{SCHEDULES}{row.pk}/delete/", {"post": "yes"}).status_code,
    ]

    assert codes == [403] * 6
    shown = viewer.get(page(row))
    assert buttons_of(shown) == []
    assert "At 02:30" in text_of(shown)
    assert (saved(row).enabled, saved(row).cron, Job.objects.count(), log()) == (True, "30 2 * * *", 0, [])


def test_who_may_change_schedules_can_act_on_them(db: None) -> None:
    row = schedule()
    operator = staff("change_schedule")

    press(operator, "run_now", row, at=SCHEDULES)
    press(operator, "pause", row, at=SCHEDULES, post="yes")

    assert Job.objects.count() == 1
    assert not saved(row).enabled


def test_who_has_no_permission_sees_nothing(db: None) -> None:
    assert staff().get(SCHEDULES).status_code == 403


# Text


def test_names_and_reasons_are_shown_as_text(browser: Client) -> None:
    row = schedule(f"a{SCRIPT}", args=[SCRIPT])
    Schedule.objects.pause(row.name, SCRIPT)
    Schedule.objects.filter(pk=row.pk).update(timezone=SCRIPT)
    job = run_of(row, NOON)

    pages = [browser.get(at).content.decode() for at in (SCHEDULES, page(row), f"{JOBS}{job.pk}/change/")]
    pages.append(browser.post(SCHEDULES, {"action": "pause", "_selected_action": row.pk}).content.decode())
    pages.append(
        browser.post(SCHEDULES, {"action": "run_now", "_selected_action": row.pk}, follow=True).content.decode()
    )

    assert [SCRIPT in content for content in pages] == [False] * 5
