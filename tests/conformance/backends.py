"""A backend for Django's tests of results: a job is stored, run by a worker's means, and read again."""

from __future__ import annotations

from typing import Any

from django_jobs.backend import JobResult, JobsBackend
from django_jobs.testing import run_jobs


class RunAtOnceBackend(JobsBackend):
    def enqueue(self, task: Any, args: Any, kwargs: Any) -> JobResult:
        result = super().enqueue(task, args, kwargs)
        run_jobs()
        result.refresh()
        return result
