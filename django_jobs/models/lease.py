"""A named promise with an end: who leads. Correctness never rests on it; it saves double work."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .database import JobsManager, from_now

LEADER = "leader"


class LeaseQuerySet(models.QuerySet["Lease"]):
    def hold(self, name: str, holder: str, length: timedelta) -> bool:
        """Take the lease if it is free, or extend it if ``holder`` has it. False: another holder has it."""
        free = Q(expires_at__lte=Now()) | Q(holder=holder)
        taken = self.filter(free, name=name).update(holder=holder, expires_at=from_now(length))
        if not taken and not self.filter(name=name).exists():
            # The first holder ever makes the row; whoever loses that race asks again later.
            self.bulk_create([Lease(name=name, holder="", expires_at=Now())], ignore_conflicts=True)  # type: ignore[list-item]
            taken = self.filter(free, name=name).update(holder=holder, expires_at=from_now(length))
        return bool(taken)

    def resign(self, name: str, holder: str) -> bool:
        """End the lease now, so that another holder may take it at once."""
        return bool(self.filter(name=name, holder=holder).update(expires_at=Now()))


class Lease(models.Model):
    name = models.CharField(_("name"), max_length=50, primary_key=True)
    holder = models.CharField(_("holder"), max_length=255, blank=True)
    expires_at = models.DateTimeField(_("expires at"))

    objects = JobsManager.from_queryset(LeaseQuerySet)()

    class Meta:
        verbose_name = _("lease")
        verbose_name_plural = _("leases")

    def __str__(self) -> str:
        return f"{self.name}: {self.holder}"
