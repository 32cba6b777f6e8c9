"""Schedules in the admin: when they run next and how the last runs went, their settings, run now, pause and resume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import conf
from ..exceptions import JobsError
from ..models import Job, Schedule
from ..models.schedule_history import last_jobs
from ..models.schedule_problems import SETTINGS
from . import display
from .filters import ScheduleStatusFilter, TaskFilter
from .page import RowAdmin
from .schedule_forms import PauseForm, ScheduleForm
from .schedule_runs import last_runs, next_runs, preview, words_of

# How many of the last jobs each row of the list shows.
MOST_LISTED_RUNS = 5


class ScheduleChangeList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = with_last_jobs(list(self.result_list))
        for schedule in self.result_list:
            schedule.stored_problem = schedule.problem


def with_last_jobs(schedules: Sequence[Any]) -> Sequence[Any]:
    """Give each schedule its ``last_jobs``; the queries are as many for one schedule as for a hundred."""
    found = last_jobs(schedules, MOST_LISTED_RUNS)
    for schedule in schedules:
        schedule.last_jobs = found[schedule.pk]
    return schedules


@admin.register(Schedule)
class ScheduleAdmin(RowAdmin):
    actions = ("run_now", "pause", "resume", "delete_selected")
    button_labels = {
        "run_now": gettext_lazy("Run now"),
        "pause": gettext_lazy("Pause"),
        "resume": gettext_lazy("Resume"),
    }
    change_form_template = "admin/django_jobs/schedule/change_form.html"
    form = ScheduleForm
    list_display = (
        "name",
        "status",
        "expression",
        "next_run",
        "last_run",
        "last_outcomes",
        "late_starts",
        "task_path",
    )
    list_filter = (ScheduleStatusFilter, "is_declared", TaskFilter)
    search_fields = ("name", "task_path")
    readonly_fields = ("status", "origin", "words_now", "upcoming", "next_run", "last_run", "counts")
    fieldsets = (
        (None, {"fields": ("name", "status", "origin", ("next_run", "last_run", "counts"))}),
        (gettext_lazy("Task"), {"fields": ("task_path", "args", "kwargs", ("queue_name", "priority"))}),
        (
            gettext_lazy("When"),
            {"fields": (("cron", "run_at"), "timezone", "words_now", "upcoming", ("start_at", "end_at"), "jitter")},
        ),
        (gettext_lazy("Overlap and downtime"), {"fields": ("overlap", ("catch_up", "catch_up_limit"))}),
    )
    add_fieldsets = ((None, {"fields": ("name",)}), *fieldsets[1:])

    class Media:
        js = ["django_jobs/schedule.js"]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.preview_view)
        return [path("preview/", view, name="django_jobs_schedule_preview"), *super().get_urls()]

    def preview_view(self, request: HttpRequest) -> JsonResponse:
        """Return the words and the next runs of what was typed into a form, of which nothing is saved."""
        row = self.get_object(request, request.GET.get("id", ""))
        if not (self.has_add_permission(request) if row is None else self.has_change_permission(request, row)):
            raise PermissionDenied
        return JsonResponse(preview(self.get_form(request, row)(request.GET, instance=row)))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.add_fieldsets if obj is None else self.fieldsets

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Logs and code know a schedule by its name, so that stays; so does what the code sets at each start."""
        return self.readonly_fields if obj is None else (*self.readonly_fields, "name", *owned_by_code(obj))

    def save_model(self, request: HttpRequest, obj: Schedule, form: Any, change: bool) -> None:
        edited = {name: form.cleaned_data[name] for name in form.changed_data} if change else {}
        if not change:
            obj.save(using=conf.database())
        elif edited:
            # Only what was edited, in the row as it is now: a pause or a firing of the meantime stays.
            Schedule.objects.declare(obj.name, upsert=True, **edited)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ScheduleChangeList]:
        return ScheduleChangeList

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        schedule = super().get_object(request, object_id, from_field)
        if schedule is not None:
            # A form that is refused has changed the object by the time it is shown again.
            schedule.stored_problem = schedule.problem
        return schedule

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("obj") is not None:
            context |= last_runs(kwargs["obj"])
        return super().render_change_form(request, context, *args, **kwargs)

    def offers(self, name: str, row: Any) -> bool:
        if name == "run_now":
            return not row.stored_problem
        return bool(row.enabled) == (name == "pause")

    # Columns and fields

    @admin.display(description=gettext_lazy("status"))
    def status(self, schedule: Any) -> str:
        return status_of(schedule)

    @admin.display(description=gettext_lazy("declared by"))
    def origin(self, schedule: Schedule) -> str:
        if not schedule.is_declared:
            return _("people: everything is edited here")
        fields: dict[str, Any] = {field.name: field for field in Schedule._meta.fields}
        names = [str(fields[name].verbose_name) for name in owned_by_code(schedule)]
        return _(
            "the code or the settings, which own its %(names)s: a worker sets them when it starts, and makes the "
            "schedule again if it was deleted. The rest is edited here, and a pause stays."
        ) % {"names": ", ".join(names)}

    @admin.display(description=gettext_lazy("expression"))
    def expression(self, schedule: Schedule) -> str:
        if schedule.run_at is not None and not schedule.cron:
            return format_html(_("once, at {time}"), time=display.moment(schedule.run_at))
        return display.with_note(schedule.cron, f"{words_of(schedule)} ({schedule.timezone})".strip())

    @admin.display(description=gettext_lazy("in words"))
    def words_now(self, schedule: Schedule) -> str:
        return words_of(schedule) or display.EMPTY

    @admin.display(description=gettext_lazy("next five runs"))
    def upcoming(self, schedule: Schedule) -> str:
        return next_runs(schedule)

    @admin.display(description=gettext_lazy("next run"))
    def next_run(self, schedule: Any) -> str:
        if not schedule.enabled or schedule.next_run_at is None:
            return display.EMPTY
        wait = schedule.next_run_at - schedule.now
        note = _("in %(time)s") % {"time": display.length(wait)} if wait.total_seconds() > 0 else _("due")
        return display.with_note(display.moment(schedule.next_run_at), note)

    @admin.display(description=gettext_lazy("last run"))
    def last_run(self, schedule: Schedule) -> str:
        return display.moment(schedule.last_run_at)

    @admin.display(description=gettext_lazy("last outcomes"))
    def last_outcomes(self, schedule: Any) -> str:
        """Show a badge for each of the last jobs, newest first."""
        badges = format_html_join(" ", "{}", ((self._job_badge(job),) for job in schedule.last_jobs))
        return badges or display.EMPTY

    @admin.display(description=gettext_lazy("late"))
    def late_starts(self, schedule: Schedule) -> str:
        return display.badge(schedule.late, "warn") if schedule.late else "0"

    @admin.display(description=gettext_lazy("late, missed, skipped"))
    def counts(self, schedule: Schedule) -> str:
        numbers = {"late": schedule.late, "missed": schedule.missed, "skipped": schedule.skipped}
        return _("%(late)d late, %(missed)d missed, %(skipped)d skipped") % numbers

    def _job_badge(self, job: Any) -> str:
        return self.link_to_page(Job, job.pk, display.state_badge(job.state, job.get_state_display()))

    # Actions

    @admin.action(permissions=["operate"], description=gettext_lazy("Run selected schedules now"))
    def run_now(self, request: HttpRequest, queryset: QuerySet) -> None:
        for schedule in queryset:
            try:
                result = Schedule.objects.run_now(schedule.name)
            except JobsError as error:
                text = _("“%(name)s” was not run: %(reason)s") % {"name": schedule.name, "reason": error}
                self.message_user(request, text, messages.ERROR)
                continue
            self._report_run(request, schedule, result)

    def _report_run(self, request: HttpRequest, schedule: Schedule, result: Any) -> None:
        job = self.link_to_page(Job, result.id, _("job %(id)s") % {"id": result.id})
        if not result.is_new:
            text = _("“{}” was not run: {} has its unique key.")
            self.message_user(request, format_html(text, schedule.name, job), messages.WARNING)
            return
        self.log_change(request, schedule, _("Run now: job %(id)s.") % {"id": result.id})
        self.message_user(request, format_html(_("“{}” runs now, as {}."), schedule.name, job), messages.SUCCESS)

    @admin.action(permissions=["operate"], description=gettext_lazy("Pause selected schedules"))
    def pause(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        schedules = list(queryset)
        form = PauseForm(request.POST if "post" in request.POST else None)
        if not form.is_valid():
            title = ngettext("Pause %(count)d schedule", "Pause %(count)d schedules", len(schedules))
            names = [schedule.name for schedule in schedules]
            return self.confirmation(
                request, queryset, "pause.html", title % {"count": len(names)}, form=form, names=names
            )
        reason = form.cleaned_data["reason"]
        paused = [schedule for schedule in schedules if Schedule.objects.pause(schedule.name, reason)]
        log = _("Paused: %(reason)s") % {"reason": reason} if reason else _("Paused.")
        self.report_changed(request, paused, len(schedules), log)
        return None

    @admin.action(permissions=["operate"], description=gettext_lazy("Resume selected schedules"))
    def resume(self, request: HttpRequest, queryset: QuerySet) -> None:
        schedules = list(queryset)
        resumed = [schedule for schedule in schedules if Schedule.objects.resume(schedule.name)]
        self.report_changed(request, resumed, len(schedules), _("Resumed."))


def owned_by_code(schedule: Schedule) -> list[str]:
    """Return the settings that the code or the project's settings give, and set again whenever a worker starts."""
    given = schedule.declaration if schedule.is_declared and schedule.withdrawn_at is None else None
    # Whether it is enabled is said once by code, and then by people.
    return [name for name in SETTINGS if name != "enabled" and name in given] if isinstance(given, list) else []


def status_of(schedule: Any) -> str:
    """Return badges that say whether the schedule is enabled, paused or broken, and why."""
    parts = [] if schedule.enabled else [display.with_note(display.badge(_("paused"), "warn"), schedule.paused_reason)]
    if schedule.stored_problem:
        parts.append(display.with_note(display.badge(_("problem"), "bad"), schedule.stored_problem))
    elif schedule.enabled and schedule.next_run_at is None:
        parts.append(display.badge(_("ended")))
    return format_html_join(" ", "{}", ((part,) for part in parts or [display.badge(_("enabled"))]))
