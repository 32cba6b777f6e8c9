"""Settings of a project that declares a schedule."""

from tests.settings import *  # noqa: F403

DJANGO_JOBS = {"SCHEDULES": {"each second": {"task": "tests.jobs.touch", "cron": "* * * * * *"}}}
