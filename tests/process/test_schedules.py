"""Schedules with real workers: each moment runs once however many there are, and what was missed follows its policy."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise

import pytest
from django.db.models import F

from django_jobs.models import Job, Schedule
from tests import jobs
from tests.processes import wait_until
from tests.rows import database_time

from .conftest import PATIENT, Start
from .ledger import Ledger
from .observe import wait_until_finished

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def start(start: Start) -> Start:
    """Leases are not what these tests are about."""
    return partial(start, *PATIENT)


def moments(name: str) -> list[datetime]:
    """Return for which moments there are jobs, in their order."""
    of_it = Job.objects.filter(schedule__name=name).order_by("scheduled_for")
    return [moment for moment in of_it.values_list("scheduled_for", flat=True) if moment]


def assert_each_ran_once(name: str, ledger: Ledger) -> None:
    """Stop the schedule, wait for the last of its jobs, and assert that none is missing and none came twice."""
    Schedule.objects.pause(name)
    fired = list(Job.objects.filter(schedule__name=name))
    wait_until_finished(fired)
    assert {later - earlier for earlier, later in pairwise(moments(name))} == {SECOND}
    assert ledger.times_run() == dict.fromkeys((job.pk for job in fired), 1)
    assert (Schedule.objects.get(name=name).missed, Schedule.objects.get(name=name).skipped) == (0, 0)


@pytest.mark.parametrize("seconds", [pytest.param(5, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.long)])
def test_five_workers_and_others_run_each_second_once(start: Start, ledger: Ledger, seconds: int) -> None:
    Schedule.objects.declare("each second", task=jobs.touch, cron="* * * * * *")
    Schedule.objects.pause("each second")
    start("--processes=5", workers=5)
    start()
    Schedule.objects.resume("each second")

    def came() -> bool:
        # Besides the leader: whoever does it at the same time.
        Schedule.objects.fire_due()
        return len(moments("each second")) >= seconds

    wait_until(came, timeout=seconds + 30, message=f"{seconds} moments")
    assert_each_ran_once("each second", ledger)


@pytest.mark.slow
def test_a_leader_that_is_killed_is_followed_by_another_and_no_second_is_left_out(start: Start, ledger: Ledger) -> None:
    Schedule.objects.declare("each second", task=jobs.touch, cron="* * * * * *")
    leader = start("--heartbeat-timeout=2")
    wait_until(lambda: len(moments("each second")) >= 2, message="2 moments")
    start("--heartbeat-timeout=2")
    leader.kill()
    killed_at = len(moments("each second"))

    wait_until(lambda: len(moments("each second")) >= killed_at + 4, message="4 moments more")

    Schedule.objects.pause("each second")
    assert {later - earlier for earlier, later in pairwise(moments("each second"))} == {SECOND}


def test_after_three_hours_without_workers_the_policies_say_what_runs(start: Start) -> None:
    # Half an hour from now, so that no moment comes while the test runs.
    cron = f"{(database_time() + HOUR / 2).minute} * * * *"
    for name in ("none", "latest", "all"):
        Schedule.objects.declare(name, task=jobs.touch, cron=cron, catch_up=name, catch_up_limit=2)
    coming = Schedule.objects.get(name="all").next_run_at
    Schedule.objects.update(next_run_at=F("next_run_at") - 4 * HOUR)
    start()

    wait_until(lambda: not Schedule.objects.due().exists(), message="all fired")

    assert {name: moments(name) for name in ("none", "latest", "all")} == {
        "none": [],
        "latest": [coming - HOUR],
        "all": [coming - 2 * HOUR, coming - HOUR],
    }
    counted = Schedule.objects.order_by("name").values_list("name", "late", "missed", "next_run_at")
    assert list(counted) == [("all", 2, 2, coming), ("latest", 1, 3, coming), ("none", 0, 4, coming)]


@pytest.mark.parametrize("processes", [1, 0])
def test_what_the_settings_declare_runs_once_workers_have_started(start: Start, ledger: Ledger, processes: int) -> None:
    command = start(
        f"--processes={processes}", env={"DJANGO_SETTINGS_MODULE": "tests.process.settings_with_a_schedule"}
    )

    wait_until(lambda: ledger.count("ran") >= 2, message="2 runs")

    schedule = Schedule.objects.get()
    assert (schedule.name, schedule.is_declared, schedule.problem) == ("each second", True, "")
    assert command.stop() == 0
