"""The project that runs the jobs of django-tasks-db."""

from __future__ import annotations

from benchmarks.peers.django_settings import *  # noqa: F403
from benchmarks.peers.django_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django_tasks_db"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
