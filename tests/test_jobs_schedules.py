"""``manage.py jobs schedules``: what it does, what it prints, and with which code it ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_jobs.models import Job, Schedule
from django_jobs.states import JobState

from .processes import Command
from .unique_tasks import ship, ship_once

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
GONE = "shop.tasks.gone"


def schedules(*arguments: str) -> str:
    """Run the command and return what it prints."""
    output = StringIO()
    call_command("jobs", "schedules", *arguments, stdout=output)
    return output.getvalue()


def answer(*arguments: str) -> Any:
    return json.loads(schedules(*arguments, "--json"))


def refused(*arguments: str) -> tuple[int, str]:
    """Return the exit code with which the command refuses, and what it says."""
    with pytest.raises(CommandError) as caught:
        schedules(*arguments)
    return caught.value.returncode, str(caught.value)


def schedule(name: str = "nightly", **settings: Any) -> Schedule:
    return Schedule.objects.declare(name, **{"task_path": "tests.tasks.noop", "cron": "30 2 * * *"} | settings)


def nightly() -> Schedule:
    return Schedule.objects.get(name="nightly")


def run_of(row: Schedule, scheduled_for: datetime | None, state: JobState = JobState.READY) -> Job:
    job = Job.objects.create(task_path=row.task_path, schedule=row, scheduled_for=scheduled_for)
    Job.objects.filter(pk=job.pk).update(state=state)
    return job


# list and show


def test_the_list_shows_each_schedule_with_its_state_and_its_last_runs() -> None:
    row = schedule(timezone="Europe/Paris")
    schedule("broken")
    schedule("off", cron="@hourly")
    schedule("once", cron="", run_at=datetime(2100, 1, 2, 3, 4, tzinfo=UTC))
    Schedule.objects.pause("off")
    Schedule.objects.filter(name="broken").update(task_path=GONE)
    times = {"next_run_at": datetime(2100, 1, 2, 1, 30, tzinfo=UTC), "last_run_at": NOON}
    Schedule.objects.filter(name="nightly").update(**times, late=2)
    run_of(row, NOON, JobState.FAILED)
    run_of(row, NOON - timedelta(days=1), JobState.SUCCEEDED)

    lines = [line.split("  ") for line in schedules().splitlines()]
    table = [[cell.strip() for cell in line if cell.strip()] for line in lines]

    assert table[0] == ["SCHEDULE", "STATE", "WHEN", "ZONE", "NEXT", "LAST", "OUTCOMES", "LATE"]
    assert table[1][:4] == ["broken", "problem", "30 2 * * *", "UTC"]
    assert table[2] == [
        "nightly", "enabled", "30 2 * * *", "Europe/Paris", "2100-01-02 01:30:00+0000", "2026-11-20 12:00:00+0000",
        "failed succeeded", "2",
    ]  # fmt: skip
    assert table[3] == ["off", "disabled", "@hourly", "UTC", "-", "-", "-", "0"]
    assert table[4][:3] == ["once", "enabled", "once, at 2100-01-02 03:04:00+0000"]
    assert table[5] == []
    assert GONE in table[6][0]
    assert schedules("list") == schedules()


def test_a_list_of_many_schedules_takes_no_more_queries() -> None:
    run_of(schedule(), NOON)
    with CaptureQueriesContext(connection) as few:
        schedules()
    for number in range(7):
        run_of(schedule(f"schedule {number}"), NOON)

    with CaptureQueriesContext(connection) as many:
        schedules()

    assert len(many) == len(few)


@pytest.mark.parametrize("arguments", [["--json"], ["--json", "list"], ["list", "--json"]])
def test_the_list_as_json_has_everything(arguments: list[str]) -> None:
    row = schedule(args=[1], kwargs={"a": "b"}, jitter=5, priority=3)
    job = run_of(row, NOON, JobState.FAILED)
    Schedule.objects.pause("nightly", "Strike")

    [told] = json.loads(schedules(*arguments))

    assert (told["name"], told["enabled"], told["paused_reason"]) == ("nightly", False, "Strike")
    assert (told["problem"], told["words"], told["next_run_at"]) == ("", "At 02:30", None)
    assert told["last_runs"] == [{"job": job.pk, "state": "failed", "scheduled_for": "2026-11-20T12:00:00Z"}]
    assert told["settings"] == {
        "task_path": "tests.tasks.noop",
        "args": [1],
        "kwargs": {"a": "b"},
        "cron": "30 2 * * *",
        "run_at": None,
        "timezone": "UTC",
        "start_at": None,
        "end_at": None,
        "jitter": 5.0,
        "overlap": "allow",
        "catch_up": "latest",
        "catch_up_limit": 10,
        "queue_name": "",
        "priority": 3,
    }


def test_an_empty_list_has_its_titles_only() -> None:
    assert schedules().split() == ["SCHEDULE", "STATE", "WHEN", "ZONE", "NEXT", "LAST", "OUTCOMES", "LATE"]
    assert answer() == []


def test_a_schedule_is_shown_with_its_next_runs_in_its_zone_and_its_last() -> None:
    row = schedule(cron="30 2 1 7 *", timezone="America/New_York")
    job = run_of(row, NOON, JobState.SUCCEEDED)
    asked = run_of(row, None)

    told, text = answer("show", "nightly"), schedules("show", "nightly")

    assert [run[4:] for run in told["next_runs"]] == ["-07-01T02:30:00-04:00"] * 5
    assert [run["job"] for run in told["last_runs"]] == [asked.pk, job.pk]
    assert "At 02:30, on day 1 of the month, only in July" in text
    assert text.count("-07-01 02:30:00-0400") == 5
    assert f"2026-11-20 12:00:00+0000  job {job.pk}: succeeded" in text
    assert f"by hand  job {asked.pk}: ready" in text


def test_a_broken_schedule_is_shown_with_its_problem() -> None:
    schedule()
    Schedule.objects.update(timezone="Mars/Olympus")

    text = schedules("show", "nightly")

    assert text.startswith("nightly: problem\n")
    assert "Mars/Olympus" in text


# run, enable and disable


def test_a_schedule_is_run_now_and_keeps_its_times() -> None:
    row = schedule(task_path="tests.tasks.add", args=[1, 2])

    told = schedules("run", "nightly")

    job = Job.objects.get()
    assert (job.args, job.schedule_id, job.state) == ([1, 2], row.pk, JobState.READY)
    assert told == f"Schedule 'nightly' runs now, as job {job.pk}.\n"
    assert nightly().next_run_at == row.next_run_at


@pytest.mark.parametrize("task", [ship, ship_once])
def test_a_schedule_whose_job_waits_already_is_not_run_twice(task: Any) -> None:
    schedule(task_path=task.path, args=[7])
    Schedule.objects.run_now("nightly")

    told = refused("run", "nightly")

    assert told[0] == 1
    assert f"job {Job.objects.get().pk}" in told[1].lower().replace("#", "")


@pytest.mark.parametrize(("disable", "enable"), [("disable", "enable"), ("pause", "resume")])
def test_a_schedule_is_disabled_and_enabled(disable: str, enable: str) -> None:
    schedule()

    told = schedules(disable, "nightly", "--reason", "Strike")
    disabled = (nightly().enabled, nightly().paused_reason)
    told += schedules(enable, "nightly")

    assert told == "Schedule 'nightly' was disabled.\nSchedule 'nightly' was enabled.\n"
    assert disabled == (False, "Strike")
    assert (nightly().enabled, nightly().paused_reason) == (True, "")


def test_what_was_done_is_told_as_json() -> None:
    schedule()

    assert answer("disable", "nightly") == {"name": "nightly", "disabled": True}
    assert answer("enable", "nightly") == {"name": "nightly", "enabled": True}
    ran = answer("run", "nightly")
    assert ran == {"name": "nightly", "job": Job.objects.get().pk}
    assert answer("delete", "nightly") == {"name": "nightly", "is_declared": False}


# add and delete

FLAGS = [
    "--task=tests.tasks.add",
    "--cron=30 2 * * *",
    "--timezone=Europe/Paris",
    "--args=[1]",
    '--kwargs={"b": 2}',
    "--queue=mail",
    "--priority=7",
    "--start=2026-01-02T03:04:05",
    "--end=2100-01-02T03:04:05+01:00",
    "--jitter=30",
    "--overlap=skip",
    "--catch-up=all",
    "--catch-up-limit=3",
]
ADDED = {
    "task_path": "tests.tasks.add",
    "args": [1],
    "kwargs": {"b": 2},
    "cron": "30 2 * * *",
    "run_at": None,
    "timezone": "Europe/Paris",
    "start_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "end_at": datetime(2100, 1, 2, 2, 4, 5, tzinfo=UTC),
    "jitter": 30.0,
    "overlap": "skip",
    "catch_up": "all",
    "catch_up_limit": 3,
    "queue_name": "mail",
    "priority": 7,
}


def test_a_schedule_is_added_with_every_setting() -> None:
    told = schedules("add", "nightly", *FLAGS)

    assert Schedule.objects.values(*ADDED).get(name="nightly") == ADDED
    row = nightly()
    assert (row.enabled, row.is_declared) == (True, False)
    assert row.next_run_at is not None
    assert row.next_run_at > timezone.now()
    assert told.startswith("Schedule 'nightly' was added: 30 2 * * *. First run: ")
    assert " 02:30:00+0" in told


def test_a_one_off_is_added() -> None:
    told = answer("add", "once", "--task=tests.tasks.noop", "--at=2099-01-02T03:04:05")

    assert told["next_runs"] == ["2099-01-02T03:04:05Z"]
    assert Schedule.objects.get().next_run_at == datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["show", "nihgtly"], 1, "There is no schedule 'nihgtly'. Did you mean 'nightly'?"),
        (["run", "zzz"], 1, "There is no schedule 'zzz'."),
        (["enable", "zzz"], 1, "There is no schedule 'zzz'."),
        (["disable", "zzz"], 1, "There is no schedule 'zzz'."),
        (["delete", "zzz"], 1, "There is no schedule 'zzz'."),
        (["enable", "nightly"], 1, "Schedule 'nightly' is enabled already."),
        (["disable", "nightly", "--reason", "x" * 256], 2, "at most 255 characters"),
        (["add", "nightly", "--task=tests.tasks.noop", "--cron=@daily"], 1, "There is a schedule 'nightly' already."),
        (["add", "x" * 300, "--task=tests.tasks.noop", "--cron=@daily"], 2, "at most 255 characters"),
        (["add", "x", f"--task={GONE}", "--cron=@daily"], 2, f"'{GONE}' is not a declared task"),
        (["add", "x", "--task=os.system", "--cron=@daily"], 2, "os.system"),
        (["add", "x", "--task=tests.tasks.noop", "--cron=every day"], 2, "every day"),
        (["add", "x", "--task=tests.tasks.noop", "--cron=0 0 31 2 *"], 2, "can never occur"),
        (["add", "x", "--task=tests.tasks.noop", "--cron="], 2, "cron"),
        (["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--timezone=Mars/X"], 2, "Mars/X"),
        (["add", "x", "--task=tests.tasks.add", "--cron=@daily"], 2, "'a'"),
        (["add", "x", "--task=tests.tasks.add", "--cron=@daily", '--kwargs={"a": 1, "c": 2}'], 2, "'c'"),
        (["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--jitter=-1"], 2, "jitter"),
        (["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--overlap=never"], 2, "never"),
        (["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--catch-up=some"], 2, "some"),
        (["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--catch-up-limit=0"], 2, "catch_up_limit"),
        (["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--priority=101"], 2, "priority"),
        (
            [
                "add",
                "x",
                "--task=tests.tasks.noop",
                "--cron=@daily",
                "--start=2030-01-02T00:00",
                "--end=2030-01-01T00:00",
            ],
            2,
            "end_at is before start_at",
        ),
    ],
)
def test_what_cannot_be_done_is_told_with_a_code(arguments: list[str], code: int, text: str) -> None:
    schedule()
    before = list(Schedule.objects.values())

    told = refused(*arguments)

    assert told[0] == code
    assert text in told[1]
    assert list(Schedule.objects.values()) == before
    assert not Job.objects.exists()


def test_a_schedule_that_cannot_work_is_not_run() -> None:
    schedule()
    Schedule.objects.update(task_path=GONE)

    told = refused("run", "nightly")

    assert told[0] == 2
    assert GONE in told[1]


def test_what_is_disabled_already_stays_as_it_is() -> None:
    schedule()
    Schedule.objects.pause("nightly", "first")

    assert refused("disable", "nightly", "--reason", "second") == (1, "Schedule 'nightly' is disabled already.")
    assert nightly().paused_reason == "first"


@pytest.mark.parametrize(
    "arguments",
    [
        ["stop", "nightly"],
        ["show"],
        ["add", "x"],
        ["add", "x", "--task=tests.tasks.noop"],
        ["add", "x", "--cron=@daily"],
        ["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--at=2099-01-01T00:00"],
        ["add", "x", "--task=tests.tasks.noop", "--at=tomorrow"],
        ["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--args={}"],
        ["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--args=[1"],
        ["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--args=" + "[" * 5000 + "]" * 5000],
        ["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--kwargs=[]"],
        ["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--jitter=soon"],
        ["add", "x", "--task=tests.tasks.noop", "--cron=@daily", "--priority=first"],
    ],
)
def test_wrong_usage_is_refused(arguments: list[str]) -> None:
    schedule()

    with pytest.raises(CommandError):
        schedules(*arguments)

    assert Schedule.objects.get().enabled


def test_a_deleted_schedule_leaves_its_jobs() -> None:
    job = run_of(schedule(), NOON)

    told = schedules("delete", "nightly")

    assert told == "Schedule 'nightly' was deleted; its jobs stay.\n"
    assert not Schedule.objects.exists()
    assert Job.objects.get(pk=job.pk).schedule_id is None


def test_who_deletes_a_schedule_of_the_code_is_told_that_it_comes_back() -> None:
    schedule()
    Schedule.objects.update(is_declared=True)

    assert "comes back when a worker starts" in schedules("delete", "nightly")


# As a program

PROGRAM = [
    (["add", "nightly", "--task=tests.tasks.noop", "--cron=30 2 * * *", "--json"], 0, '"next_runs": ['),
    (["run", "nihgtly"], 1, "There is no schedule 'nihgtly'."),
    (["add", "x", "--task=tests.tasks.noop", "--cron=0 0 31 2 *"], 2, "can never occur"),
    (["add", "x"], 2, "--task"),
]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_codes_are_those_of_the_process(project_env: dict[str, str], tmp_path: Any) -> None:
    for number, (arguments, code, text) in enumerate(PROGRAM):
        command = Command(["jobs", "schedules", *arguments], project_env, tmp_path / f"{number}.log")

        assert command.wait() == code, command.output()
        assert text in command.output()
        assert "Traceback" not in command.output()
    assert nightly().enabled


@pytest.mark.parametrize("name", ["list", "show", "run", "enable", "disable", "add", "delete"])
def test_the_help_says_the_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        schedules(name, "--help")

    assert "Exit codes: 0 " in " ".join(capsys.readouterr().out.split())
