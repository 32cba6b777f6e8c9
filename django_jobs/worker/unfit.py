"""Jobs that this code cannot run: their task is not declared here, or their arguments do not fit its function.

That is no fault of the job. While a new version is rolled out, workers of the old one meet jobs of tasks that they do not
know yet; after a mistaken one, jobs from before wait for it to be taken back. So the attempt does not count. The job waits,
twice as long each time, at the end an hour, until a worker with the right code runs it or somebody cancels it: it does not
end by itself, because then it would be lost. Each attempt is logged as a warning, and the job's history says why.
"""

from __future__ import annotations

import inspect
import traceback
from typing import Any

from ..compat import DjangoTask
from ..exceptions import UnknownTask
from ..outcomes import ClaimedJob
from ..retries import spread
from ..states import AttemptOutcome
from ..task import find_task

# The first wait, the longest, and by which part they vary (seconds). The first is short: another worker may be newer.
_FIRST, _LONGEST, _JITTER = 2.0, 3600.0, 0.25


def is_unfit(error: BaseException, job: ClaimedJob) -> bool:
    """Say whether an attempt that raised ``error`` never got as far as the task's function, for want of the right code."""
    try:
        task = find_task(job.task_path)
    except UnknownTask:
        return True
    return isinstance(error, TypeError) and not _fits(task, job) and not _has_begun(task.func, error)


def longer_each_time(job: ClaimedJob) -> float:
    """Return for how many seconds the job waits: by how often it has been postponed before."""
    earlier = sum(past.outcome == AttemptOutcome.POSTPONED for past in job.history)
    return spread(min(_FIRST * 2 ** min(earlier, 64), _LONGEST), _JITTER)


def _fits(task: DjangoTask, job: ClaimedJob) -> bool:
    args: Any = job.args
    kwargs: Any = job.kwargs
    if not (isinstance(args, list) and isinstance(kwargs, dict)):
        # The row is bad, and no other code would find it better.
        return True
    context = [None] if task.takes_context else []
    try:
        signature = inspect.signature(task.func)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*context, *args, **kwargs)
    except TypeError:
        return False
    return True


def _has_begun(function: Any, error: BaseException) -> bool:
    """Say whether the error came from inside the function: a decorator may give it arguments that the job has not."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return any(frame.f_code is code for frame, _line in traceback.walk_tb(error.__traceback__))
