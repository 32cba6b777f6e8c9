"""Schedules: what a row may say, when it fires, and what becomes of what was missed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_jobs.models import Job, Schedule

from . import tasks

pytestmark = pytest.mark.django_db


def test_a_schedule_fires_at_its_moment_once() -> None:
    schedule = Schedule.objects.declare("minutely", task=tasks.noop, cron="* * * * *")
    moment = schedule.next_run_at

    assert Schedule.objects.fire_due(moment - timedelta(seconds=1)) == 0
    assert Schedule.objects.fire_due(moment) == 1
    assert Schedule.objects.fire_due(moment) == 0

    job = Job.objects.get()
    assert (job.schedule, job.scheduled_for, job.task_path) == (schedule, moment, tasks.noop.path)
    schedule.refresh_from_db()
    assert schedule.next_run_at == moment + timedelta(minutes=1)
