"""The Django app: finds the tasks and registers the checks once all apps are ready."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class JobsConfig(AppConfig):
    name = "django_jobs"
    verbose_name = _("Background jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401
        from .compat import register_framework_checks
        from .task import discover_tasks

        register_framework_checks()
        discover_tasks()
