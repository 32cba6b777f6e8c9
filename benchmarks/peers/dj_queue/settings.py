"""The project that runs the jobs of dj_queue: ten threads instead of its three, otherwise its defaults."""

from __future__ import annotations

from benchmarks.peers.django_settings import *  # noqa: F403
from benchmarks.peers.django_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "dj_queue"]
DATABASE_ROUTERS = ["dj_queue.routers.DjQueueRouter"]
TASKS = {
    "default": {
        "BACKEND": "dj_queue.backend.DjQueueBackend",
        "QUEUES": [],
        "OPTIONS": {"workers": [{"queues": "*", "threads": 10}]},
    }
}
