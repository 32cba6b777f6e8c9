"""A limit: how many jobs of one concurrency key may be ready or running at once, and the row that is locked to count them."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..exceptions import InvalidOption
from ..options import LONGEST_PATH, MOST_SLOTS, is_key
from .database import JobsManager


class LimitQuerySet(models.QuerySet["Limit"]):
    def override(self, key: str, limit: int | None) -> None:
        """Let ``limit`` jobs of this key be ready or running at once, whatever its tasks say; None: as they say.

        0 lets nothing start. Takes effect at once: more jobs are admitted, or ready ones blocked; running ones go on.
        Raise InvalidOption for what can be no key or limit.
        """
        if not is_key(key):
            raise InvalidOption(f"A concurrency key is a text of 1 to {LONGEST_PATH} characters, not {key!r}.")
        if limit is not None and (
            isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= MOST_SLOTS
        ):
            raise InvalidOption(f"A limit is a whole number from 0 to {MOST_SLOTS}, or None, not {limit!r}.")
        self.update_or_create(key=key, defaults={"override": limit}, create_defaults={"override": limit, "limit": 1})
        # Imported here: the queries of jobs need the model of limits.
        from .slot_changes import after_override

        after_override(self.db, key)


class Limit(models.Model):
    key = models.CharField(_("concurrency key"), max_length=255, primary_key=True)
    limit = models.PositiveIntegerField(
        _("limit"), help_text=_("What the task of the job that was enqueued last says.")
    )
    override = models.PositiveIntegerField(
        _("override"),
        null=True,
        blank=True,
        help_text=_("Counts instead of the limit of the tasks. 0: nothing starts. Empty: as the tasks say."),
    )
    used_at = models.DateTimeField(_("used at"), db_default=Now(), editable=False)

    objects = JobsManager.from_queryset(LimitQuerySet)()

    class Meta:
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        ordering = ["key"]

    def __str__(self) -> str:
        return self.key
