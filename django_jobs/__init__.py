"""django_jobs: background jobs that live in Django's own database.

This is the front door. It is free of the ORM, so models.py may import it.
"""

from .context import current_job
from .exceptions import Cancel, Fail, Retry, Snooze

# Imported here and not on demand: importing the module django_jobs.task later would put the module
# in the place of the function.
from .task import enqueue_many, task

__version__ = "0.1.0"
__all__ = ["Cancel", "Fail", "Retry", "Snooze", "current_job", "enqueue_many", "task"]
