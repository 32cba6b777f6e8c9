"""A queue: a named lane of jobs, which an operator may pause."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .. import conf, notifications, signals
from ..exceptions import InvalidOption
from ..options import LONGEST_QUEUE_NAME, is_name
from .database import JobsManager, SecondsField

ALL_QUEUES = ("*",)


_LANE_COLUMNS = ("concurrency", "max_running", "rate_limit", "rate_window", "executor", "timeout", "poll_interval")


class Lane(NamedTuple):
    """A queue as a worker sees it. None: no limit of its own, or as the worker's option or the task says."""

    name: str
    concurrency: int | None = None
    max_running: int | None = None
    rate_limit: int | None = None
    rate_window: float | None = None
    executor: str = ""
    timeout: float | None = None
    poll_interval: float | None = None

    @property
    def is_limited(self) -> bool:
        """Say whether all workers together share a limit, so that the claim must ask the queue's row."""
        return self.max_running is not None or self.rate_limit is not None


def _lane(row: Mapping[str, Any]) -> Lane:
    return Lane(row["name"], *(row[name] for name in _LANE_COLUMNS))


class QueueQuerySet(models.QuerySet["Queue"]):
    def declare(self, name: str, upsert: bool = False, **settings: Any) -> Queue:
        """Make sure that the queue exists and return it.

        With ``upsert`` an existing queue takes the given settings; without, it stays as it is.
        Raise InvalidOption for a setting that queues do not have, and for a name or value that cannot be stored.
        """
        for setting in settings:
            self._refuse_unknown(setting)
        if not is_name(name, LONGEST_QUEUE_NAME):
            raise InvalidOption(f"The name of a queue is a text of 1 to {LONGEST_QUEUE_NAME} characters, not {name!r}.")
        try:
            Queue(name=name, **settings).clean_fields()
        except ValidationError as error:
            raise InvalidOption(f"Queue {name!r}: {error.message_dict}") from error
        if upsert:
            return self.update_or_create(name=name, defaults=settings)[0]
        return self.get_or_create(name=name, defaults=settings)[0]

    def declare_all(self, names: Iterable[str]) -> None:
        """Make sure that all these queues exist, in two statements at the most."""
        missing = set(names) - set(self.values_list("name", flat=True))
        if missing:
            self.bulk_create([Queue(name=name) for name in sorted(missing)], ignore_conflicts=True)  # type: ignore[misc]

    def paused(self) -> QueueQuerySet:
        """Return the queues whose pause has not ended, by the database's clock."""
        return self.filter(Q(resume_at=None) | Q(resume_at__gt=Now()), paused_at__isnull=False)

    def served_by(self, patterns: Sequence[str], tags: Sequence[str] = ALL_QUEUES) -> list[str]:
        """Return the names of the queues that a worker with these patterns and tags takes jobs from now, sorted."""
        return [lane.name for lane in self.lanes_for(patterns, tags)]

    def lanes_for(self, patterns: Sequence[str], tags: Sequence[str] = ALL_QUEUES) -> list[Lane]:
        """Return the queues that a worker takes jobs from now, sorted by name, with what it must know of them.

        A pattern is a name, a prefix with ``*`` at its end, or either with ``!`` before it to leave queues out.
        """
        rows = self.exclude(pk__in=self.paused().values("pk")).order_by("name")
        columns = rows.values("name", "tags", *_LANE_COLUMNS)
        return [_lane(row) for row in columns if matches(row["name"], patterns) and matches_tags(row["tags"], tags)]

    def pause(self, name: str, reason: str = "", resume_at: datetime | None = None) -> bool:
        """Stop workers from taking jobs of this queue. False if there is no such queue or it is paused."""
        changed = (
            self.exclude(pk__in=self.paused().values("pk"))
            .filter(name=name)
            .update(paused_at=Now(), paused_reason=reason, resume_at=resume_at)
        )
        if changed:
            notifications.hint(notifications.QUEUES)
            signals.send(signals.queue_paused, Queue, queue=name, reason=reason)
        return bool(changed)

    def resume(self, name: str) -> bool:
        """Let workers take jobs of this queue again. False if there is no such queue or it is not paused."""
        changed = self.paused().filter(name=name).update(paused_at=None, paused_reason="", resume_at=None)
        if changed:
            notifications.hint(notifications.QUEUES)
            signals.send(signals.queue_resumed, Queue, queue=name)
        return bool(changed)

    def _refuse_unknown(self, setting: str) -> None:
        known = [field.name for field in Queue._meta.get_fields() if field.name not in ("id", "name")]
        if setting in known:
            return
        suggestion = conf.closest(setting, known)
        raise InvalidOption(
            f"A queue has no setting {setting!r}."
            + (f" Did you mean {suggestion!r}?" if suggestion else "")
            + f" It has: {', '.join(known)}."
        )


def matches_tags(expressions: Sequence[str], tags: Sequence[str]) -> bool:
    """Say whether a worker with these tags may serve a queue whose tags are these regular expressions."""
    return any(one == "*" or any(re.fullmatch(one, tag) for tag in tags) for one in expressions)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Say whether a worker with these patterns serves the queue ``name``."""
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")] or list(ALL_QUEUES)
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    return any(_fits(name, pattern) for pattern in wanted) and not any(_fits(name, pattern) for pattern in unwanted)


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def every_worker() -> list[str]:
    """Return the tags of a queue that every worker serves."""
    return list(ALL_QUEUES)


class Queue(models.Model):
    name = models.CharField(_("name"), max_length=100, unique=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True, editable=False)
    paused_reason = models.CharField(_("reason of the pause"), max_length=255, blank=True)
    resume_at = models.DateTimeField(
        _("resume at"), null=True, blank=True, help_text=_("A pause ends by itself at this time; empty: it lasts.")
    )
    tags = models.JSONField(
        _("tags"),
        default=every_worker,
        db_default=Value(list(ALL_QUEUES), models.JSONField()),
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
