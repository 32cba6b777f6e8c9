"""A queue: a named lane of jobs with its settings, which an operator may change and pause. Read ``queue_queryset`` next."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Value
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .database import JobsManager, ReadableJSONField, SecondsField
from .queue_problems import EVERY_WORKER, SETTINGS, problem_of, problems_of
from .queue_queryset import ALL_QUEUES, Lane, QueueQuerySet, matches

__all__ = ["ALL_QUEUES", "Lane", "Queue", "QueueQuerySet", "matches"]


def every_worker() -> list[str]:
    """Return the tags of a queue that every worker serves."""
    return [EVERY_WORKER]


class Queue(models.Model):
    name = models.CharField(_("name"), max_length=100, unique=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True, editable=False)
    paused_reason = models.CharField(_("reason of the pause"), max_length=255, blank=True)
    resume_at = models.DateTimeField(
        _("resume at"), null=True, blank=True, help_text=_("A pause ends by itself at this time; empty: it lasts.")
    )
    tags = ReadableJSONField(
        _("tags"),
        default=every_worker,
        db_default=Value([EVERY_WORKER], models.JSONField()),
        blank=True,
        help_text=_(
            "Regular expressions: a worker serves the queue when one of them is the whole of one of its tags. "
            "“*” is every worker; without any, no worker does."
        ),
    )
    concurrency = models.PositiveIntegerField(
        _("concurrency"), null=True, blank=True, help_text=_("How many of its jobs a worker runs at once.")
    )
    max_running = models.PositiveIntegerField(
        _("max running"), null=True, blank=True, help_text=_("How many of its jobs all workers together run at once.")
    )
    rate_limit = models.PositiveIntegerField(
        _("rate limit"), null=True, blank=True, help_text=_("How many of its jobs start in each rate window.")
    )
    rate_window = SecondsField(_("rate window (seconds)"), null=True, blank=True)
    tokens = models.FloatField(_("tokens"), null=True, editable=False, help_text=_("Starts left, at the time beside."))
    tokens_at = models.DateTimeField(_("tokens at"), null=True, editable=False)
    executor = models.CharField(
        _("executor"), max_length=10, blank=True, default="", db_default="", help_text=_("Empty: as the task says.")
    )
    timeout = SecondsField(
        _("timeout (seconds)"), null=True, blank=True, help_text=_("Of jobs whose task does not say another.")
    )
    poll_interval = SecondsField(
        _("poll interval (seconds)"), null=True, blank=True, help_text=_("Empty: as the worker's option says.")
    )
    raise_after = SecondsField(
        _("raise after (seconds)"),
        null=True,
        blank=True,
        help_text=_("Jobs that wait longer get a larger priority, again and again. Empty: never."),
    )
    raise_by = models.PositiveSmallIntegerField(
        _("raise by"), default=1, db_default=1, help_text=_("How much larger the priority gets each time.")
    )
    keep_succeeded = models.DurationField(
        _("keep succeeded jobs"), null=True, blank=True, help_text=_("Empty: as the setting KEEP_SUCCEEDED says.")
    )
    keep_failed = models.DurationField(
        _("keep failed jobs"),
        null=True,
        blank=True,
        help_text=_("Failed and cancelled jobs. Empty: as the setting KEEP_FAILED says."),
    )

    objects = JobsManager.from_queryset(QueueQuerySet)()

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def problem(self) -> str:
        """What is wrong with the settings, in words: workers leave such a queue alone. Empty if nothing is."""
        return problem_of(self._settings())

    def clean(self) -> None:
        """Raise ValidationError, by setting, for what cannot work by itself or together."""
        super().clean()
        problems = problems_of(self._settings())
        if problems:
            raise ValidationError({name: f"{name} {problem}" for name, problem in problems.items()})

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SETTINGS}
