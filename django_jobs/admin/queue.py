"""Queues in the admin: what waits, who takes it, settings, pause and resume, and deletion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import notifications
from ..models import Job, Queue, Worker
from ..models.backlog import TAKES_JOBS, Backlog, backlogs, undeclared_ready_queues
from ..models.queue_removal import CANCEL, DELETE, KEEP, Removed
from ..states import JobState
from . import display
from .actions import MOST_MOVED
from .page import Button, RowAdmin
from .queue_forms import DeletionForm, PauseForm, QueueForm

MOST_WORKERS_NAMED = 5


class QueueChangeList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = with_backlogs(list(self.result_list))


def with_backlogs(queues: Sequence[Any]) -> Sequence[Any]:
    """Give each queue its ``backlog``; the queries are as many for one queue as for a hundred."""
    found = backlogs(queues)
    for queue in queues:
        queue.backlog = found[queue.name]
    return queues


@admin.register(Queue)
class QueueAdmin(RowAdmin):
    actions = ("pause", "resume", "delete_selected")
    button_labels = {"pause": gettext_lazy("Pause"), "resume": gettext_lazy("Resume")}
    all_labels = {"pause": gettext_lazy("Pause all queues"), "resume": gettext_lazy("Resume all queues")}
    change_list_template = "admin/django_jobs/queue/change_list.html"
    form = QueueForm
    list_display = ("name", "status", "ready", "oldest_wait", "running", "served_by", "tag_list")
    search_fields = ("name",)
    readonly_fields = ("status", "ready", "oldest_wait", "running", "served_by")
    fieldsets = (
        (None, {"fields": ("name", "status", ("ready", "oldest_wait", "running"), "served_by", "resume_at")}),
        (gettext_lazy("Workers"), {"fields": ("tags", ("executor", "poll_interval"))}),
        (gettext_lazy("Limits"), {"fields": (("concurrency", "max_running"), ("rate_limit", "rate_window"))}),
        (gettext_lazy("Jobs"), {"fields": ("timeout", ("raise_after", "raise_by"))}),
        (gettext_lazy("Finished jobs"), {"fields": ("keep_succeeded", "keep_failed")}),
    )
    add_fieldsets = ((None, {"fields": ("name",)}), *fieldsets[1:])

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.add_fieldsets if obj is None else self.fieldsets

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Jobs know their queue by its name, so that stays; only a pause has an end that can be moved."""
        if obj is None:
            return ()
        fixed = ("name",) if obj.backlog.is_paused else ("name", "resume_at")
        return (*self.readonly_fields, *fixed)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[QueueChangeList]:
        return QueueChangeList

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        context: dict[str, Any] = {}
        if request.method == "GET":
            buttons = [Button(label, self._url("all", name)) for name, label in self.all_labels.items()]
            context = {
                "undeclared_queues": undeclared_ready_queues(),
                "all_buttons": buttons if self.has_operate_permission(request) else [],
            }
        return super().changelist_view(request, context | (extra_context or {}))

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        queue = super().get_object(request, object_id, from_field)
        return queue and with_backlogs([queue])[0]

    def save_model(self, request: HttpRequest, obj: Queue, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        notifications.hint(notifications.QUEUES)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.all_view)
        return [path("all/<slug:name>/", view, name="django_jobs_queue_all"), *super().get_urls()]

    def all_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Ask, then pause or resume all queues."""
        if not self.has_operate_permission(request):
            raise PermissionDenied
        if name not in self.all_labels:
            raise Http404
        queues = self.get_queryset(request)
        if name == "pause":
            response = self.pause(request, queues)
        elif "post" in request.POST:
            response = self.resume(request, queues)
        else:
            names = [queue.name for queue in Queue.objects.paused()]
            response = self.confirmation(request, queues, "resume.html", str(self.all_labels[name]), names=names)
        return response or HttpResponseRedirect(self.list_url(request))

    def _back_url(self, request: HttpRequest, queryset: QuerySet, is_list: bool) -> str:
        match = request.resolver_match
        is_for_all = match is not None and match.url_name == "django_jobs_queue_all"
        return self.list_url(request) if is_for_all else super()._back_url(request, queryset, is_list)

    def offers(self, name: str, row: Any) -> bool:
        return row.backlog.is_paused == (name == "resume")

    # Columns

    @admin.display(description=gettext_lazy("status"))
    def status(self, queue: Any) -> str:
        parts = [_pause_of(queue)] if queue.backlog.is_paused else []
        if queue.backlog.problem:
            note = _("No worker takes its jobs: %(problem)s") % {"problem": queue.backlog.problem}
            parts.append(display.with_note(display.badge(_("problem"), "bad"), note))
        elif queue.backlog.is_stuck:
            parts.append(display.with_note(display.badge(_("problem"), "bad"), _problem_of(queue.backlog)))
        return format_html_join(" ", "{}", ((part,) for part in parts or [display.badge(_("open"))]))

    @admin.display(description=gettext_lazy("ready"))
    def ready(self, queue: Any) -> str:
        return self._jobs_link(queue, JobState.READY, queue.backlog.ready, display.capped(queue.backlog.ready))

    @admin.display(description=gettext_lazy("oldest wait"))
    def oldest_wait(self, queue: Any) -> str:
        return display.length(queue.backlog.oldest_wait)

    @admin.display(description=gettext_lazy("running"))
    def running(self, queue: Any) -> str:
        """Say how many run, and how many may."""
        link = self._jobs_link(queue, JobState.RUNNING, queue.backlog.running, str(queue.backlog.running))
        return link if queue.max_running is None else format_html("{} / {}", link, queue.max_running)

    @admin.display(description=gettext_lazy("tags"))
    def tag_list(self, queue: Any) -> str:
        tags = queue.tags if isinstance(queue.tags, list) else [queue.tags]
        shown = format_html_join(" ", '<span class="django-jobs-tag">{}</span>', ((tag,) for tag in tags))
        return shown or display.badge(_("no worker"), "warn")

    @admin.display(description=gettext_lazy("served by"))
    def served_by(self, queue: Any) -> str:
        workers = queue.backlog.workers
        if not workers:
            return display.badge(_("no live worker"), "warn")
        named = format_html_join(", ", "{}", ((self._worker_link(worker),) for worker in workers[:MOST_WORKERS_NAMED]))
        more = len(workers) - MOST_WORKERS_NAMED
        return format_html("{} {}", named, _("and %(count)d more") % {"count": more}) if more > 0 else named

    def _jobs_link(self, queue: Queue, state: JobState, count: int, text: str) -> str:
        if not count:
            return text
        return self.link_to_list(Job, text, queue_name=queue.name, state__exact=state)

    def _worker_link(self, worker: Worker) -> str:
        link = self.link_to_page(Worker, worker.pk, worker.worker_id)
        return link if worker.state in TAKES_JOBS else display.with_note(link, f"({worker.get_state_display()})")

    # Actions

    @admin.action(permissions=["operate"], description=gettext_lazy("Pause selected queues"))
    def pause(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        queues = list(queryset)
        names = [queue.name for queue in queues]
        now = queues[0].now if queues else None
        form = PauseForm(request.POST if "post" in request.POST else None, now=now)
        if not form.is_valid():
            title = ngettext("Pause %(count)d queue", "Pause %(count)d queues", len(names)) % {"count": len(names)}
            return self.confirmation(request, queryset, "pause.html", title, form=form, names=names)
        reason, resume_at = form.cleaned_data["reason"], form.cleaned_data["resume_at"]
        paused = [queue for queue in queues if Queue.objects.pause(queue.name, reason, resume_at)]
        self.report_changed(
            request, paused, len(names), _("Paused: %(reason)s") % {"reason": reason} if reason else _("Paused.")
        )
        return None

    @admin.action(permissions=["operate"], description=gettext_lazy("Resume selected queues"))
    def resume(self, request: HttpRequest, queryset: QuerySet) -> None:
        queues = list(queryset)
        resumed = [queue for queue in queues if Queue.objects.resume(queue.name)]
        self.report_changed(request, resumed, len(queues), _("Resumed."))

    @admin.action(permissions=["delete"], description=gettext_lazy("Delete selected queues"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        form = DeletionForm(
            request.POST if "post" in request.POST else None,
            may_change=request.user.has_perm("django_jobs.change_job"),
            may_delete=request.user.has_perm("django_jobs.delete_job"),
        )
        queues = list(queryset)
        if not form.is_valid():
            title = ngettext("Delete %(count)d queue?", "Delete %(count)d queues?", len(queues))
            names = [queue.name for queue in queues]
            return self.confirmation(
                request, queryset, "delete.html", title % {"count": len(queues)}, form=form, names=names
            )
        for queue in queues:
            removed = Queue.objects.remove(queue.name, form.cleaned_data["jobs"], at_most=MOST_MOVED)
            self._report_removed(request, queue, form.cleaned_data["jobs"], removed)
        return None

    def _report_removed(self, request: HttpRequest, queue: Queue, jobs: str, removed: Removed) -> None:
        names = {
            KEEP: _("its jobs were kept"),
            CANCEL: _("its jobs were cancelled"),
            DELETE: _("its jobs were deleted"),
        }
        counts = _("%(cancelled)d cancelled, %(stopping)d asked to stop, %(deleted)d deleted") % removed._asdict()
        text = names[jobs] if jobs == KEEP else f"{names[jobs]} ({counts})"
        if removed.is_removed or removed.has_more:
            LogEntry.objects.log_actions(
                user_id=request.user.pk,  # type: ignore[arg-type]
                queryset=[queue],
                action_flag=DELETION if removed.is_removed else CHANGE,
                change_message=text,
            )
        told = {"name": queue.name, "jobs": text}
        if removed.is_removed:
            self.message_user(request, _("The queue “%(name)s” was deleted; %(jobs)s.") % told, messages.SUCCESS)
        elif removed.has_more:
            more = _("The queue “%(name)s” has more jobs and is still there; %(jobs)s. Repeat it for the others.")
            self.message_user(request, more % told, messages.WARNING)


def _pause_of(queue: Any) -> str:
    note = queue.paused_reason
    if queue.resume_at is not None:
        until = format_html(_("until {time}"), time=display.moment(queue.resume_at))
        note = format_html("{} ({})", note, until) if note else until
    return display.with_note(display.badge(_("paused"), "warn"), note)


def _problem_of(backlog: Backlog) -> str:
    if backlog.takers:
        return _("Jobs are ready of priorities that no live worker of this queue takes.")
    if backlog.workers:
        return _("Jobs are ready, and the workers that serve this queue are paused or stopping.")
    return _("Jobs are ready, and no live worker serves this queue.")
