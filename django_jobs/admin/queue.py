"""Queues in the admin: what waits, who takes it, pause and resume, and how long finished jobs are kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import notifications
from ..models import Queue, Worker
from ..models.backlog import TAKES_JOBS, Backlog, backlogs, undeclared_ready_queues
from ..states import JobState
from . import display
from .page import RowAdmin

MOST_WORKERS_NAMED = 5


class QueueForm(forms.ModelForm):
    class Meta:
        model = Queue
        fields = ("name", "resume_at", "keep_succeeded", "keep_failed")
        help_texts = {
            "keep_succeeded": gettext_lazy(
                "Days and hours, such as “7 00:00:00”. Empty: as the setting KEEP_SUCCEEDED says. 0: for ever."
            ),
            "keep_failed": gettext_lazy(
                "Failed and cancelled jobs, such as “30 00:00:00”. Empty: as the setting KEEP_FAILED says. 0: for ever."
            ),
        }

    def clean_keep_succeeded(self) -> timedelta | None:
        return self._not_negative("keep_succeeded")

    def clean_keep_failed(self) -> timedelta | None:
        return self._not_negative("keep_failed")

    def _not_negative(self, name: str) -> timedelta | None:
        duration = self.cleaned_data[name]
        if duration is not None and duration < timedelta():
            raise forms.ValidationError(_("A time to keep jobs cannot be negative."))
        return duration


class PauseForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=255,
        required=False,
        help_text=gettext_lazy("Shown to everybody who looks at the queue."),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )
    resume_at = forms.DateTimeField(
        label=gettext_lazy("Resume at"),
        required=False,
        help_text=gettext_lazy(
            "The pause ends by itself at this time. Empty: it lasts until somebody resumes the queue."
        ),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
    )

    def __init__(self, *args: Any, now: datetime | None, **kwargs: Any) -> None:
        """Take ``now`` by the database's clock: the end of a pause is compared with no other."""
        super().__init__(*args, **kwargs)
        self._now = now

    def clean_resume_at(self) -> Any:
        resume_at = self.cleaned_data["resume_at"]
        if resume_at is not None and self._now is not None and resume_at <= self._now:
            raise forms.ValidationError(_("This time has passed: the pause would end before it began."))
        return resume_at


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
    actions = ("pause", "resume")
    button_labels = {"pause": gettext_lazy("Pause"), "resume": gettext_lazy("Resume")}
    change_list_template = "admin/django_jobs/queue/change_list.html"
    form = QueueForm
    list_display = ("name", "status", "ready", "oldest_wait", "running", "served_by")
    search_fields = ("name",)
    readonly_fields = ("status", "ready", "oldest_wait", "running", "served_by")
    fieldsets = (
        (None, {"fields": ("name", "status", ("ready", "oldest_wait", "running"), "served_by", "resume_at")}),
        (gettext_lazy("Finished jobs"), {"fields": ("keep_succeeded", "keep_failed")}),
    )
    add_fieldsets = ((None, {"fields": ("name",)}), fieldsets[1])

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
        context = {"undeclared_queues": undeclared_ready_queues()} if request.method == "GET" else {}
        return super().changelist_view(request, context | (extra_context or {}))

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        queue = super().get_object(request, object_id, from_field)
        return queue and with_backlogs([queue])[0]

    def save_model(self, request: HttpRequest, obj: Queue, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        notifications.hint(notifications.QUEUES)

    def offers(self, name: str, row: Any) -> bool:
        return row.backlog.is_paused == (name == "resume")

    # Columns

    @admin.display(description=gettext_lazy("status"))
    def status(self, queue: Any) -> str:
        parts = [_pause_of(queue)] if queue.backlog.is_paused else []
        if queue.backlog.is_stuck:
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
        return self._jobs_link(queue, JobState.RUNNING, queue.backlog.running, str(queue.backlog.running))

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
        url = reverse(f"{self.admin_site.name}:django_jobs_job_changelist")
        return format_html(
            '<a href="{}?{}">{}</a>', url, urlencode({"queue_name": queue.name, "state__exact": state}), text
        )

    def _worker_link(self, worker: Worker) -> str:
        url = reverse(f"{self.admin_site.name}:django_jobs_worker_change", args=[worker.pk])
        link = format_html('<a href="{}">{}</a>', url, worker.worker_id)
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
        self._report(
            request, paused, len(names), _("Paused: %(reason)s") % {"reason": reason} if reason else _("Paused.")
        )
        return None

    @admin.action(permissions=["operate"], description=gettext_lazy("Resume selected queues"))
    def resume(self, request: HttpRequest, queryset: QuerySet) -> None:
        queues = list(queryset)
        resumed = [queue for queue in queues if Queue.objects.resume(queue.name)]
        self._report(request, resumed, len(queues), _("Resumed."))

    def _report(self, request: HttpRequest, changed: Sequence[Queue], selected: int, log: str) -> None:
        for queue in changed:
            self.log_change(request, queue, log)
        if changed:
            text = ngettext(
                "%(count)d queue was changed: %(log)s", "%(count)d queues were changed: %(log)s", len(changed)
            )
            self.message_user(request, text % {"count": len(changed), "log": log}, messages.SUCCESS)
        left = selected - len(changed)
        if left:
            text = ngettext(
                "%(count)d queue was left as it was: it is in that state already.",
                "%(count)d queues were left as they were: they are in that state already.",
                left,
            )
            self.message_user(request, text % {"count": left}, messages.WARNING)


def _pause_of(queue: Any) -> str:
    note = queue.paused_reason
    if queue.resume_at is not None:
        until = format_html(_("until {time}"), time=display.moment(queue.resume_at))
        note = format_html("{} ({})", note, until) if note else until
    return display.with_note(display.badge(_("paused"), "warn"), note)


def _problem_of(backlog: Backlog) -> str:
    if backlog.workers:
        return _("Jobs are ready, and the workers that serve this queue are paused or stopping.")
    return _("Jobs are ready, and no live worker serves this queue.")
