"""A job: one task with its arguments, to be run. Its verbs are in ``job_queryset``."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..states import FINISHED, KEYED, UNFINISHED, JobState
from .claim import PLACE
from .database import JobsManager
from .job_queryset import JobQuerySet


class Job(models.Model):
    id = models.BigAutoField(_("id"), primary_key=True)
    task_path = models.CharField(_("task"), max_length=255)
    queue_name = models.CharField(_("queue"), max_length=100, default="default")
    priority = models.SmallIntegerField(_("priority"), default=0, help_text=_("−100 to 100; larger runs first."))
    args = models.JSONField(_("positional arguments"), default=list)
    kwargs = models.JSONField(_("keyword arguments"), default=dict)
    state = models.CharField(_("state"), max_length=10, choices=JobState.choices, default=JobState.READY)
    run_after = models.DateTimeField(_("run after"), null=True, blank=True)
    enqueued_at = models.DateTimeField(_("enqueued at"), db_default=Now())
    started_at = models.DateTimeField(_("started at"), null=True, help_text=_("The first attempt's start."))
    last_attempted_at = models.DateTimeField(_("last attempted at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)
    attempt = models.PositiveIntegerField(_("attempt"), default=0, help_text=_("Counts claims; never goes back."))
    max_attempts = models.PositiveIntegerField(_("max attempts"), default=3)
    worker_id = models.CharField(_("worker"), max_length=255, blank=True)
    timeout = models.FloatField(_("timeout (seconds)"), null=True, blank=True)
    unique_key = models.CharField(_("unique key"), max_length=255, null=True, blank=True)
    unique_until = models.DateTimeField(
        _("unique until"),
        null=True,
        blank=True,
        help_text=_("Until then the key is taken, also once the job has ended."),
    )
    concurrency_key = models.CharField(_("concurrency key"), max_length=255, blank=True, default="", db_default="")
    concurrency_limit = models.PositiveIntegerField(
        _("concurrency limit"), null=True, blank=True, help_text=_("What its task said when the job was enqueued.")
    )
    position = models.BigIntegerField(
        _("position"),
        null=True,
        blank=True,
        help_text=_("Its place among the ready jobs of its priority. Empty: its id."),
    )
    raised = models.PositiveSmallIntegerField(
        _("raised"), default=0, db_default=0, help_text=_("How often its priority was raised because it waited.")
    )
    cancel_requested_at = models.DateTimeField(_("cancel requested at"), null=True)
    # Whoever fires a schedule writes these two after the INSERT, which every other job does without.
    schedule = models.ForeignKey(
        "django_jobs.Schedule",
        models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        # The constraint has an index of the few rows that have one.
        db_index=False,
        related_name="jobs",
        verbose_name=_("schedule"),
    )
    scheduled_for = models.DateTimeField(
        _("scheduled for"), null=True, blank=True, editable=False, help_text=_("The moment of its schedule.")
    )
    progress = models.JSONField(_("progress"), null=True)
    meta = models.JSONField(_("meta"), default=dict)
    backend = models.CharField(_("backend"), max_length=100, default="default")

    objects = JobsManager.from_queryset(JobQuerySet)()

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        # Every index is partial: a job leaves the index of a state when it leaves the state, so that claiming
        # costs the same however many jobs are finished or scheduled.
        indexes = [
            models.Index(
                F("queue_name"),
                F("priority").desc(),
                PLACE,
                condition=Q(state=JobState.READY),
                name="django_jobs_ready",
            ),
            models.Index(fields=["run_after"], condition=Q(state=JobState.SCHEDULED), name="django_jobs_due"),
            models.Index(fields=["worker_id"], condition=Q(state=JobState.RUNNING), name="django_jobs_running"),
            models.Index(fields=["finished_at"], condition=Q(state__in=FINISHED), name="django_jobs_finished"),
            models.Index(
                fields=["state", "concurrency_key", "-priority", "id"],
                condition=~Q(concurrency_key="") & Q(state__in=KEYED),
                name="django_jobs_keyed",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["unique_key"],
                condition=Q(unique_key__isnull=False) & (Q(state__in=UNFINISHED) | Q(unique_until__isnull=False)),
                name="django_jobs_unique_key",
            ),
            # Each moment of a schedule once, however many look at it at once.
            models.UniqueConstraint(
                fields=["schedule", "scheduled_for"],
                condition=Q(schedule__isnull=False),
                name="django_jobs_schedule_moment",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task_path} #{self.pk}"
