"""The project that runs our jobs."""

from __future__ import annotations

import os

from benchmarks.peers.django_settings import *  # noqa: F403
from benchmarks.peers.django_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django_jobs", "benchmarks.peers.ours"]
TASKS = {"default": {"BACKEND": "django_jobs.backend.JobsBackend", "QUEUES": []}}
DJANGO_JOBS = {"NOTIFY": os.environ.get("BENCH_NOTIFY") != "0"}
