"""Workers and supervisors in the admin: to look at, not to change. Their rows are written by the processes."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..conf import LARGEST_PRIORITY, SMALLEST_PRIORITY
from ..models import Job, Worker
from ..states import LIVE_WORKER, JobState
from . import display
from .page import RowAdmin

# A worker runs tens of jobs, an async one hundreds.
MOST_JOBS_SHOWN = 200


class RunningJob(NamedTuple):
    row: Job
    started: str
    running_for: str


class LoopHealth(NamedTuple):
    name: str
    state: str
    age: str
    error: str


@admin.register(Worker)
class WorkerAdmin(RowAdmin):
    actions = None
    change_form_template = "admin/django_jobs/worker/change_form.html"
    list_display = (
        "worker_id",
        "state_now",
        "kind_now",
        "heartbeat",
        "serves",
        "priorities",
        "active_jobs",
        "processed",
        "failed",
        "tag_list",
    )
    list_filter = ("state", "kind")
    search_fields = ("worker_id", "hostname")
    ordering = ("-started_at", "-pk")
    fieldsets = (
        (None, {"fields": (("state_now", "kind_now", "heartbeat", "lease"), ("serves", "priorities"), "tag_list")}),
        (gettext_lazy("Work"), {"fields": (("concurrency", "active", "processed", "failed", "memory"),)}),
        (gettext_lazy("Process"), {"fields": (("hostname", "pid", "supervisor", "started"), "version_list")}),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        worker: Any = kwargs.get("obj")
        if worker is not None:
            jobs = _running_jobs(worker)
            context |= {
                "running_jobs": jobs[:MOST_JOBS_SHOWN],
                "has_more_jobs": len(jobs) > MOST_JOBS_SHOWN,
                "loops": _loops_of(worker),
            }
        return super().render_change_form(request, context, *args, **kwargs)

    # Columns and fields

    @admin.display(description=gettext_lazy("state"))
    def state_now(self, worker: Any) -> str:
        shown = display.state_badge(worker.state, worker.get_state_display())
        if has_ended_lease(worker):
            return format_html("{} {}", shown, display.badge(_("lease ended"), "bad"))
        return shown

    @admin.display(description=gettext_lazy("kind"))
    def kind_now(self, worker: Worker) -> str:
        kind = worker.get_kind_display()
        return format_html("{} {}", kind, display.badge(_("leader"), "busy")) if worker.is_leader else kind

    @admin.display(description=gettext_lazy("last heartbeat"))
    def heartbeat(self, worker: Any) -> str:
        return _("%(time)s ago") % {"time": display.length(worker.now - worker.last_seen)}

    @admin.display(description=gettext_lazy("lease"))
    def lease(self, worker: Any) -> str:
        if worker.state not in LIVE_WORKER:
            return display.EMPTY
        left = worker.expires_at - worker.now
        text = _("ended %(time)s ago") if has_ended_lease(worker) else _("ends in %(time)s")
        return text % {"time": display.length(abs(left))}

    @admin.display(description=gettext_lazy("queues"))
    def serves(self, worker: Worker) -> str:
        return _words(worker.queues)

    @admin.display(description=gettext_lazy("priorities"))
    def priorities(self, worker: Worker) -> str:
        if (worker.min_priority, worker.max_priority) == (SMALLEST_PRIORITY, LARGEST_PRIORITY):
            return _("all")
        return _("%(lowest)d to %(highest)d") % {"lowest": worker.min_priority, "highest": worker.max_priority}

    @admin.display(description=gettext_lazy("tags"))
    def tag_list(self, worker: Worker) -> str:
        return _words(worker.tags)

    @admin.display(description=gettext_lazy("active"))
    def active_jobs(self, worker: Worker) -> str:
        if not worker.active:
            return "0"
        return self.link_to_list(Job, worker.active, worker_id=worker.worker_id, state__exact=JobState.RUNNING)

    @admin.display(description=gettext_lazy("memory"))
    def memory(self, worker: Worker) -> str:
        return _("%(number)d MiB") % {"number": worker.rss // 2**20} if worker.rss else display.EMPTY

    @admin.display(description=gettext_lazy("versions"))
    def version_list(self, worker: Worker) -> str:
        versions = worker.versions
        return _words([f"{name} {versions[name]}" for name in sorted(versions)] if isinstance(versions, dict) else [])

    @admin.display(description=gettext_lazy("started at"))
    def started(self, worker: Worker) -> str:
        return display.moment(worker.started_at)


def has_ended_lease(worker: Any) -> bool:
    """Say whether the process has been silent for too long and nobody has marked it lost yet."""
    return worker.state in LIVE_WORKER and worker.expires_at <= worker.now


def _words(values: Any) -> str:
    items = values if isinstance(values, list) else []
    return (
        format_html_join(" ", '<span class="django-jobs-tag">{}</span>', ((item,) for item in items)) or display.EMPTY
    )


def _running_jobs(worker: Any) -> list[RunningJob]:
    held = Job.objects.held_by(worker.worker_id).order_by("last_attempted_at", "pk")
    rows = held.only("task_path", "last_attempted_at")[: MOST_JOBS_SHOWN + 1]
    return [
        RunningJob(row, display.moment(row.last_attempted_at), display.length(worker.now - row.last_attempted_at))
        for row in rows
        if row.last_attempted_at is not None
    ]


def _loops_of(worker: Worker) -> list[LoopHealth]:
    """Return the health that each loop reported, whatever its shape: another version may have written it."""
    loops = worker.loops if isinstance(worker.loops, dict) else {}
    return [_loop(name, health if isinstance(health, dict) else {}) for name, health in sorted(loops.items())]


def _loop(name: str, health: dict[str, Any]) -> LoopHealth:
    error = str(health.get("last_error") or "")
    if health.get("alive") is False:
        state = display.badge(_("dead"), "bad")
    else:
        state = display.badge(_("failing"), "warn") if error else display.badge(_("alive"), "good")
    age = health.get("seconds_since_pass")
    return LoopHealth(name, state, f"{age:.1f} s" if isinstance(age, int | float) else display.EMPTY, error)
