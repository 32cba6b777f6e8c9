"""Django's admin for jobs, queues, limits, schedules and workers. Importing it registers them; one module per model.

Its one rule: nothing here assigns a state or scans the jobs table. Actions call the verbs, lists are capped.
Read ``page`` first, what they have in common.
"""

from .job import JobAdmin
from .limit import LimitAdmin
from .queue import QueueAdmin
from .schedule import ScheduleAdmin
from .worker import WorkerAdmin

__all__ = ["JobAdmin", "LimitAdmin", "QueueAdmin", "ScheduleAdmin", "WorkerAdmin"]
