"""The project that runs the jobs of django-ox."""

from __future__ import annotations

from benchmarks.peers.django_settings import *  # noqa: F403
from benchmarks.peers.django_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django_ox"]
TASKS = {"default": {"BACKEND": "django_ox.backend.OxBackend"}}
