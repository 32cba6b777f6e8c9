"""An attempt of a job that did not succeed: its history. Success writes no row."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..states import AttemptOutcome
from .database import JobsManager


class Attempt(models.Model):
    job = models.ForeignKey("django_jobs.Job", models.CASCADE, related_name="attempts", verbose_name=_("job"))
    number = models.PositiveIntegerField(_("number"))
    worker_id = models.CharField(_("worker"), max_length=255)
    started_at = models.DateTimeField(_("started at"), null=True)
    ended_at = models.DateTimeField(_("ended at"))
    outcome = models.CharField(_("outcome"), max_length=12, choices=AttemptOutcome.choices)
    exception_class = models.CharField(_("exception class"), max_length=255, blank=True)
    message = models.TextField(_("message"), blank=True, help_text=_("Cut to 10,000 characters."))
    traceback = models.TextField(_("traceback"), blank=True, help_text=_("Its end, cut to 50,000 characters."))
    fingerprint = models.CharField(
        _("fingerprint"),
        max_length=64,
        blank=True,
        help_text=_("The same for errors of one class that come from one place in the project's code."),
    )

    objects = JobsManager["Attempt"]()

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="django_jobs_attempt_number")]

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.outcome}"
