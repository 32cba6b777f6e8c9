"""Limits in the admin: the concurrency keys in use, who has their slots and who waits, and what an operator says instead."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import IntegerField, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from ..models import Job, Limit
from ..models.admission import with_slots
from ..models.backlog import of_first
from ..options import MOST_SLOTS
from ..states import JobState
from . import display
from .page import RowAdmin


@admin.register(Limit)
class LimitAdmin(RowAdmin):
    list_display = ("key", "slots", "blocked", "limit", "override")
    search_fields = ("key",)
    fields = ("key", ("slots", "blocked"), "limit", "override")
    readonly_fields = ("slots", "blocked", "limit")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        keyed = Job.objects.keyed(JobState.BLOCKED).filter(concurrency_key=OuterRef("key"))
        # In the order of the index, or the planner may read the table for them.
        blocked = keyed.order_by("concurrency_key", "-priority", "pk").values("pk")
        rows = with_slots(Job.objects.all(), super().get_queryset(request))
        return rows.annotate(waiting=of_first("COUNT(*)", blocked, IntegerField()))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("key", "override") if obj is None else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Jobs know their key, so that stays; the limit is what their tasks say."""
        return () if obj is None else ("key", *self.readonly_fields)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "override":
            # Not every database says what its columns hold.
            kwargs["max_value"] = MOST_SLOTS
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A row comes back with the next job of its key, and goes by itself when there is none."""
        return False

    def save_model(self, request: HttpRequest, obj: Limit, form: Any, change: bool) -> None:
        Limit.objects.override(obj.key, obj.override)

    @admin.display(description=gettext_lazy("slots taken"))
    def slots(self, limit: Any) -> str:
        return self._jobs_link(limit, JobState.RUNNING, f"{limit.taken} / {limit.most}")

    @admin.display(description=gettext_lazy("blocked"))
    def blocked(self, limit: Any) -> str:
        return self._jobs_link(limit, JobState.BLOCKED, display.capped(limit.waiting)) if limit.waiting else "0"

    def _jobs_link(self, limit: Limit, state: JobState, text: str) -> str:
        return self.link_to_list(Job, text, concurrency_key=limit.key, state__exact=state)
