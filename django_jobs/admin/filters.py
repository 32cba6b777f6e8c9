"""The filters of the job list. Their choices come from small tables and from memory, never from the jobs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast
from django.db.models.lookups import Exact
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..models import Queue, Schedule
from ..models.database import from_now
from ..task import declared_tasks
from .paging import BEFORE, as_id

Choices = Iterable[tuple[str, Any]]


class _ColumnFilter(admin.SimpleListFilter):
    """Compares one column; a value that is none of the choices works too, from a link or typed in the address."""

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        value = self.value()
        if value is None:
            return queryset
        if "\x00" in value:
            # No text in a database has it, and PostgreSQL refuses to look for it.
            raise IncorrectLookupParameters(f"{self.parameter_name} contains a NUL character.")
        # As an expression: for a bare column SQLite prefers the index of ready jobs, and these may be most of the table.
        return queryset.filter(Exact(Cast(str(self.parameter_name), TextField()), value))

    def has_output(self) -> bool:
        return super().has_output() or self.value() is not None


class QueueFilter(_ColumnFilter):
    title = _("queue")
    parameter_name = "queue_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        return [(name, name) for name in Queue.objects.values_list("name", flat=True)]


class TaskFilter(_ColumnFilter):
    title = _("task")
    parameter_name = "task_path"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        return [(path, path) for path in declared_tasks()]


class WorkerFilter(_ColumnFilter):
    """Seen only while it filters: the links to a worker's jobs set it."""

    title = _("worker")
    parameter_name = "worker_id"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        worker_id = self.value()
        return [] if worker_id is None else [(worker_id, worker_id)]


class KeyFilter(_ColumnFilter):
    """Seen only while it filters: the links to the jobs of a concurrency key set it."""

    title = _("concurrency key")
    parameter_name = "concurrency_key"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        key = self.value()
        return [] if key is None else [(key, key)]


class BeforeFilter(admin.SimpleListFilter):
    """Where a search that went further back begins; seen only while it filters: the notice of the list sets it."""

    title = _("older than")
    parameter_name = BEFORE

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        before = self.value()
        return [] if before is None else [(before, _("Job %(id)s") % {"id": before})]

    def has_output(self) -> bool:
        return self.value() is not None

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() is None:
            return queryset
        before = as_id(str(self.value()))
        if before is None:
            raise IncorrectLookupParameters(f"{BEFORE} is not the id of a job.")
        return queryset.filter(pk__lt=before)


class FinishedFilter(admin.SimpleListFilter):
    title = _("finished")
    parameter_name = "finished"

    _periods = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        return [("hour", _("In the last hour")), ("day", _("In the last 24 hours")), ("week", _("In the last 7 days"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> QuerySet:
        period = self._periods.get(str(self.value()))
        # With the states, so that the index of finished jobs serves it.
        return queryset if period is None else queryset.finished().filter(finished_at__gte=from_now(-period))


class ScheduleStatusFilter(admin.SimpleListFilter):
    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        return [("enabled", _("Enabled")), ("paused", _("Paused")), ("problem", _("With a problem"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() == "problem":
            # What is wrong with a row is known to the code, not to the database.
            return queryset.filter(pk__in=[row.pk for row in Schedule.objects.all() if row.problem])
        return queryset.filter(enabled=self.value() == "enabled") if self.value() in ("enabled", "paused") else queryset
