"""Who a process is: its id, its automatic tags, its versions, its memory."""

from __future__ import annotations

import os
import platform
import secrets
import socket
from typing import Any

import django
import psutil

from .. import __version__, conf
from ..models import Worker
from ..models.rescue import rescue_lost


def hostname() -> str:
    return socket.gethostname()


def make_worker_id(pid: int | None = None) -> str:
    """Return ``host-pid-hex``, unique for each start of a process."""
    return f"{hostname()}-{pid or os.getpid()}-{secrets.token_hex(4)}"


def clear_name(worker_id: str) -> None:
    """Take the jobs of an earlier process that went by this id and is gone from this host, so that we may have it."""
    earlier = Worker.objects.live().filter(worker_id=worker_id, hostname=hostname()).first()
    if earlier is not None and (earlier.pid == os.getpid() or not psutil.pid_exists(earlier.pid)):
        rescue_lost([worker_id], "Its process is gone, and another has taken its name.")


def tags_of(worker_id: str, extra: list[str]) -> list[str]:
    """Return the automatic tags of a worker and the ones given to it."""
    automatic = [
        "*",
        f"hostname={hostname()}",
        f"worker_id={worker_id}",
        f"python={platform.python_version()}",
        f"arch={platform.machine()}",
        f"os={platform.system().lower()}",
    ]
    return [*automatic, *(tag for tag in extra if tag not in automatic)]


def versions() -> dict[str, Any]:
    """Return the versions that matter when two workers behave differently."""
    return {
        "python": platform.python_version(),
        "django": django.get_version(),
        "django_jobs": __version__,
        "app": conf.read("APP_VERSION"),
    }


def memory() -> int:
    """Return the resident memory of this process in bytes."""
    rss: int = psutil.Process().memory_info().rss
    return rss
