"""Django's own names that the tests use, from wherever this version of Django has them."""

from django_jobs.compat import PACKAGE, _import

django_task = _import("").task
default_task_backend = _import("").default_task_backend

__all__ = ["PACKAGE", "default_task_backend", "django_task"]
