"""Settings of the soak's own small project."""

from __future__ import annotations

import environ

env = environ.Env()

DATABASES = {"default": env.db_url("DATABASE_URL", engine="django.db.backends.postgresql")}
INSTALLED_APPS = ["django.contrib.contenttypes", "django_jobs", "benchmarks.soaking"]
TASKS = {"default": {"BACKEND": "django_jobs.backend.JobsBackend", "QUEUES": []}}
DJANGO_JOBS = {"KEEP_SUCCEEDED": 0, "KEEP_FAILED": 0}
SECRET_KEY = "only for the soak"  # noqa: S105 - guards nothing
USE_TZ = True
