"""The rows. The only SQL of django_jobs is in this package; see ``job_queryset`` for the verbs."""

from .attempt import Attempt
from .job import Job
from .lease import Lease
from .limit import Limit
from .queue import Queue
from .result import Result
from .schedule import Schedule
from .worker import Worker

__all__ = ["Attempt", "Job", "Lease", "Limit", "Queue", "Result", "Schedule", "Worker"]
