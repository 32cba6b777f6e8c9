"""What runs in ``runworker``: the only threads and processes of django_jobs.

Read ``worker.py`` (the parts of a worker process and how they are joined), ``exchange.py`` (its one conversation with
the database), ``execution.py`` (how one job runs) and ``supervisor.py`` (the parent process), in this order.
"""

from typing import Any

__all__ = ["Worker"]


def __getattr__(name: str) -> Any:
    # On demand: a child process imports this package before Django is set up.
    if name == "Worker":
        from .worker import Worker

        return Worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
