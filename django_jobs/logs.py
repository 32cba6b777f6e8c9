"""How ``runworker`` writes its log: text for people, JSON for machines.

A project that configures the logger ``django_jobs`` itself keeps its own handlers.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

# What a job's log records carry besides the message.
_EXTRA = ("job_id", "task")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, process; job_id, task and exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        entry |= {name: getattr(record, name) for name in _EXTRA if hasattr(record, name)}
        job_id = _current_job_id()
        if job_id is not None:
            entry.setdefault("job_id", job_id)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure_logging(log_format: str, verbosity: int = 1) -> None:
    """Send our log to standard error; as JSON also what jobs log, where the project has no handlers of its own.

    ``verbosity`` is that of Django's commands: 0 warnings, 1 the life of workers and failures, 2 each job.
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    formatter = JsonFormatter() if log_format == "json" else logging.Formatter(_TEXT)
    for name in ("django_jobs", "") if log_format == "json" else ("django_jobs",):
        logger = logging.getLogger(name)
        if not logger.hasHandlers():
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(formatter)
            logger.addHandler(handler)
            if name:
                logger.propagate = False
    logger = logging.getLogger("django_jobs")
    if logger.level == logging.NOTSET:
        logger.setLevel(level)


_TEXT = "%(asctime)s %(levelname)s [%(process)d] %(message)s"


def _current_job_id() -> int | None:
    from .context import current_job

    job = current_job()
    return job.job_id if job is not None else None
