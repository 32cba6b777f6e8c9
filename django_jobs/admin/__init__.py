"""Django's admin for jobs, queues and workers. Importing it registers them; one module per model.

Its one rule: nothing here assigns a state or scans the jobs table. Actions call the verbs, lists are capped.
Read ``page`` first, what the three have in common.
"""

from .job import JobAdmin
from .queue import QueueAdmin
from .worker import WorkerAdmin

__all__ = ["JobAdmin", "QueueAdmin", "WorkerAdmin"]
