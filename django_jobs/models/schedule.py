"""A schedule: when to run a task, again and again or once. ``schedule_queryset`` declares them, ``firing`` runs them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now
from django.db.models.signals import pre_save
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

from .. import conf
from ..crontab import describe, moments_after
from .database import (
    JobsManager,
    ReadableJSONField,
    SecondsField,
    as_column,
    as_moment,
    database_now,
    exclusive,
    lock_rows,
)
from .schedule_problems import LONGEST_NAME, SETTINGS, TIMES, problem_of, problems_of
from .schedule_queryset import ScheduleQuerySet

_BRIEFLY = timedelta(microseconds=1)


def default_timezone() -> str:
    """Return the zone of the project."""
    return settings.TIME_ZONE


class Overlap(models.TextChoices):
    ALLOW = "allow", _("run beside the last job")
    SKIP = "skip", _("skip while the last job is unfinished")
    REPLACE = "replace", _("cancel the last job")


class CatchUp(models.TextChoices):
    NONE = "none", _("nothing")
    LATEST = "latest", _("the latest run")
    ALL = "all", _("all runs, up to the limit")


class Schedule(models.Model):
    name = models.CharField(_("name"), max_length=LONGEST_NAME, unique=True)
    task_path = models.CharField(_("task"), max_length=255)
    args = ReadableJSONField(_("positional arguments"), default=list, blank=True)
    kwargs = ReadableJSONField(_("keyword arguments"), default=dict, blank=True)
    cron = models.CharField(
        _("cron expression"),
        max_length=255,
        blank=True,
        default="",
        help_text=_(
            "Minute, hour, day of month, month, day of week; a sixth field has seconds. Or @daily and its like."
        ),
    )
    run_at = models.DateTimeField(_("run at"), null=True, blank=True, help_text=_("Once, in place of an expression."))
    timezone = models.CharField(_("time zone"), max_length=100, default=default_timezone)
    enabled = models.BooleanField(_("enabled"), default=True)
    paused_reason = models.CharField(_("reason of the pause"), max_length=255, blank=True, default="")
    start_at = models.DateTimeField(_("start at"), null=True, blank=True, help_text=_("No run before this time."))
    end_at = models.DateTimeField(_("end at"), null=True, blank=True, help_text=_("No run after this time."))
    jitter = SecondsField(
        _("jitter (seconds)"),
        default=0,
        blank=True,
        help_text=_("Each run waits for a part of it, to spread the load."),
    )
    overlap = models.CharField(_("overlap"), max_length=10, choices=Overlap.choices, default=Overlap.ALLOW)
    catch_up = models.CharField(
        _("catch up"),
        max_length=10,
        choices=CatchUp.choices,
        default=CatchUp.LATEST,
        help_text=_("What to run of what was missed while no worker was there."),
    )
    catch_up_limit = models.PositiveIntegerField(_("catch-up limit"), default=10)
    queue_name = models.CharField(
        _("queue"), max_length=100, blank=True, default="", help_text=_("Empty: as the task says.")
    )
    priority = models.SmallIntegerField(_("priority"), null=True, blank=True, help_text=_("Empty: as the task says."))
    # What follows belongs to whoever fires and declares schedules.
    next_run_at = models.DateTimeField(_("next run at"), null=True, editable=False, db_index=True)
    last_run_at = models.DateTimeField(_("last run at"), null=True, editable=False)
    late = models.PositiveBigIntegerField(
        _("late"), default=0, editable=False, help_text=_("Runs that began more than a minute after their time.")
    )
    missed = models.PositiveBigIntegerField(
        _("missed"), default=0, editable=False, help_text=_("Runs that were not caught up.")
    )
    skipped = models.PositiveBigIntegerField(
        _("skipped"),
        default=0,
        editable=False,
        help_text=_("Runs for which no job was made: the last was unfinished, or another had the unique key."),
    )
    fault = models.TextField(_("fault"), blank=True, default="", editable=False)
    is_declared = models.BooleanField(_("declared by code"), default=False, editable=False)
    declaration = ReadableJSONField(
        _("declaration"), null=True, editable=False, help_text=_("The settings that code gives.")
    )
    withdrawn_at = models.DateTimeField(
        _("withdrawn at"), null=True, editable=False, help_text=_("Since then no code declares it any more.")
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    updated_at = models.DateTimeField(_("updated at"), db_default=Now(), editable=False)

    objects = JobsManager.from_queryset(ScheduleQuerySet)()

    # What ``next_run_at`` was when it was read: another value is one that somebody has set.
    _next_run_read: datetime | None = None

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **options: Any) -> None:
        """Write it. The next run is found anew, after the database's now, if what says when it runs was changed.

        Also if it was enabled: what would have run while it was not is not caught up. Else the next run is what somebody
        has set on this object, if so. What firing has written meanwhile stays.
        """
        written = _WRITTEN if update_fields is None else {*update_fields}
        if not written & _RETIMING:
            super().save(*args, update_fields=written, **options)
            self._next_run_read = self.next_run_at if "next_run_at" in written else self._next_run_read
            return
        with exclusive():
            stored = None if self._state.adding else lock_rows(type(self).objects.filter(pk=self.pk)).first()
            now = database_now(_alias(self))
            row = self._as_stored_with(stored, written)
            self.next_run_at = self._next_run_to_write(stored, row, now)
            self.fault, self.updated_at = "", as_column(now)  # type: ignore[assignment]
            is_partial = stored is not None or update_fields is not None
            super().save(*args, update_fields=written | _FOUND if is_partial else None, **options)
        self._next_run_read = self.next_run_at

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete it; its jobs stay, without a schedule. Whoever fires it comes before or finds it gone."""
        with exclusive():
            list(lock_rows(type(self).objects.using(using or _alias(self)).filter(pk=self.pk)).values_list("pk"))
            return super().delete(using=using, keep_parents=keep_parents)

    delete.alters_data = True  # type: ignore[attr-defined]

    @classmethod
    def from_db(cls, *args: Any, **options: Any) -> Schedule:
        schedule = super().from_db(*args, **options)
        schedule._next_run_read = schedule.__dict__.get("next_run_at")
        return schedule

    def refresh_from_db(self, *args: Any, **options: Any) -> None:
        super().refresh_from_db(*args, **options)
        self._next_run_read = self.__dict__.get("next_run_at")

    @property
    def problem(self) -> str:
        """Why it cannot run, in words; empty if nothing is wrong. Others are not touched by it."""
        if self.withdrawn_at is not None:
            return "Nothing in the code or the settings declares it any more: it does not run. Whoever edits it takes it over."
        return problem_of(self.settings()) or self.fault

    @property
    def words(self) -> str:
        """When it runs, in words."""
        if self.cron:
            return describe(self.cron)
        if self.run_at is None:
            return ""
        bad_zone = problems_of({"timezone": self.timezone})
        at = as_moment(self.run_at).astimezone(UTC if bad_zone else ZoneInfo(self.timezone))
        return f"Once, at {at:%Y-%m-%d %H:%M:%S %Z}"

    def settings(self) -> dict[str, Any]:
        """Return what people and code say of it."""
        return {name: getattr(self, name) for name in SETTINGS}

    # When it runs

    def moments_after(self, moment: datetime) -> Iterator[datetime]:
        """Yield its moments after this one in their order, between its start and its end. Its times have no problem."""
        if not self.cron:
            moments: Iterable[datetime] = [as_moment(self.run_at)] if self.run_at else []
        else:
            begin = moment if self.start_at is None else max(moment, as_moment(self.start_at) - _BRIEFLY)
            moments = moments_after(self.cron, begin, ZoneInfo(self.timezone))
        for each in moments:
            if self.end_at is not None and each > as_moment(self.end_at):
                return
            if each > moment and (self.start_at is None or each >= as_moment(self.start_at)):
                yield each

    def next_runs(self, count: int = 5, after: datetime | None = None) -> list[datetime]:
        """Return the next moments, at most ``count``, in UTC; none if its times cannot work or it has ended.

        They follow ``after``; without it they begin with ``next_run_at``, or for a new schedule after the database's now.
        """
        if self.has_bad_times:
            return []
        if after is None and self.next_run_at is not None:
            first = as_moment(self.next_run_at)
            return [first, *islice(self.moments_after(first), count - 1)][:count]
        if after is None and self.pk is not None:
            return []
        return list(islice(self.moments_after(after or database_now(_alias(self))), count))

    @property
    def has_bad_times(self) -> bool:
        """Say whether what says when it runs cannot work."""
        return bool(problems_of({name: getattr(self, name) for name in TIMES}))

    # Saving

    def begin_after(self, now: datetime) -> None:
        """Find the next run of a row that is not saved by itself, unless somebody has set it."""
        if self.next_run_at is None:
            self.next_run_at = self._next_run(None, now)

    def _as_stored_with(self, stored: Schedule | None, written: Iterable[str]) -> Schedule:
        """Return the row as it will be: of this object only what is written."""
        if stored is None:
            return self
        row = copy(stored)
        for name in written:
            setattr(row, name, getattr(self, name))
        return row

    def _next_run_to_write(self, stored: Schedule | None, row: Schedule, now: datetime) -> datetime | None:
        is_set = self.next_run_at != self._next_run_read
        if stored is not None and row._is_retimed(stored):
            return row._next_run(stored, now)
        if is_set:
            return self.next_run_at
        return row._next_run(None, now) if stored is None else stored.next_run_at

    def _next_run(self, stored: Schedule | None, now: datetime) -> datetime | None:
        if self.withdrawn_at is not None:
            return None
        if self.has_bad_times:
            # Of times that can be read no more, such as those of a zone that a host lacks: it goes on once they can.
            return stored.next_run_at if stored else None
        return as_column(next(self.moments_after(now), None))

    def clean(self) -> None:
        """Raise ValidationError, by setting, for what cannot work by itself or together."""
        super().clean()
        # Empty fields of a form.
        for name, empty in (("args", []), ("kwargs", {}), ("jitter", 0.0)):
            if getattr(self, name) is None:
                setattr(self, name, empty)
        self.cron = self.cron.strip() if isinstance(self.cron, str) else self.cron
        problems = problems_of(self.settings())
        if not problems and self._has_passed():
            problems["run_at"] = "has passed."
        if problems:
            raise ValidationError({name: f"{name} {problem}" for name, problem in problems.items()})

    def _has_passed(self) -> bool:
        """Say whether its one time is new and lies behind: it would never run."""
        if self.run_at is None or type(self).objects.filter(pk=self.pk, run_at=self.run_at).exists():
            return False
        return as_moment(self.run_at) <= database_now(_alias(self))

    def _is_retimed(self, stored: Schedule) -> bool:
        is_back = (self.enabled and not stored.enabled) or (stored.withdrawn_at and not self.withdrawn_at)
        return bool(is_back) or any(getattr(self, name) != getattr(stored, name) for name in TIMES)


# What saving a row that is there writes: not what firing counts.
_WRITTEN = {"name", *SETTINGS, "paused_reason", "is_declared", "declaration", "withdrawn_at"}
# What has the next run found anew, if it is written, and what is written along with it.
_RETIMING = {*TIMES, "enabled", "withdrawn_at"}
_FOUND = {"next_run_at", "fault", "updated_at"}


@receiver(pre_save, sender=Schedule)
def begin_what_is_loaded(instance: Schedule, raw: bool, using: str, **kwargs: Any) -> None:
    """Find the next run of a row of a fixture, which goes past ``save()``."""
    if raw:
        instance.begin_after(database_now(using))


def _alias(schedule: Schedule) -> str:
    return schedule._state.db or conf.database()
