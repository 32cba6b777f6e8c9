"""A limit: how many jobs of one concurrency key may be ready or running at once, and the row that is locked to count them."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .database import JobsManager


class Limit(models.Model):
    key = models.CharField(_("concurrency key"), max_length=255, primary_key=True)
    limit = models.PositiveIntegerField(
        _("limit"), help_text=_("What the task of the job that was enqueued last says.")
    )
    override = models.PositiveIntegerField(
        _("override"),
        null=True,
        blank=True,
        help_text=_("Counts instead of the limit of the tasks. 0: nothing starts."),
    )
    used_at = models.DateTimeField(_("used at"), db_default=Now(), editable=False)

    objects = JobsManager()

    class Meta:
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        ordering = ["key"]

    def __str__(self) -> str:
        return self.key
