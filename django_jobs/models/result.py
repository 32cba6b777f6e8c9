"""What a task returned. One row only when that was something other than None."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .database import JobsManager


class Result(models.Model):
    job = models.OneToOneField(
        "django_jobs.Job", models.CASCADE, primary_key=True, related_name="result", verbose_name=_("job")
    )
    value = models.JSONField(_("value"))

    objects = JobsManager["Result"]()

    class Meta:
        verbose_name = _("result")
        verbose_name_plural = _("results")

    def __str__(self) -> str:
        return f"result of job {self.pk}"
