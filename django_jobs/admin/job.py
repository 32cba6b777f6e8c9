"""Jobs in the admin: a list that stays fast, a page that shows everything, and the actions on both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..exceptions import UnknownTask
from ..models import Job, Limit, Schedule, Worker
from ..states import FINISHED, JobState
from ..task import declared_tasks, find_task
from . import display
from .actions import CANCEL, DELETABLE, DELETE, MOST_MOVED, RETRY, RUN_NOW, Action, act, reason_to_leave, report
from .attempt import newest_attempts
from .filters import BeforeFilter, FinishedFilter, KeyFilter, QueueFilter, TaskFilter, WorkerFilter
from .page import RowAdmin
from .paging import JobChangeList, as_id


def _time(name: str) -> Callable[[Any, Job], str]:
    """Return a column that shows one of the job's times to the second."""

    column: Any = Job._meta.get_field(name)

    @admin.display(description=column.verbose_name)
    def show(self: Any, job: Job) -> str:
        return display.moment(getattr(job, name))

    return show


@admin.register(Job)
class JobAdmin(RowAdmin):
    actions = ("retry", "cancel", "run_now", "delete_selected")
    button_labels = {
        "retry": gettext_lazy("Retry"),
        "cancel": gettext_lazy("Cancel this job"),
        "run_now": gettext_lazy("Run now"),
    }
    change_form_template = "admin/django_jobs/job/change_form.html"
    change_list_template = "admin/django_jobs/job/change_list.html"
    list_display = (
        "id",
        "state_now",
        "task_path",
        "queue_name",
        "priority",
        "attempts_used",
        "enqueued",
        "finished",
        "worker",
    )
    list_filter = ("state", QueueFilter, TaskFilter, WorkerFilter, KeyFilter, FinishedFilter, BeforeFilter)
    search_fields = ("id", "task_path", "unique_key")
    search_help_text = gettext_lazy("A job's id, its unique key, or a part of its task's name.")
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("state_now", "attempts_used", "worker"),
                    "task",
                    ("queue_name", "priority", "timeout_now", "unique_key", "key_of_slots", "backend"),
                    ("schedule_link", "scheduled"),
                )
            },
        ),
        (gettext_lazy("Arguments"), {"fields": ("positional_arguments", "keyword_arguments")}),
        (gettext_lazy("Outcome"), {"fields": ("returned", "progress_now", "meta_now")}),
        (
            gettext_lazy("Times"),
            {
                "fields": (
                    ("enqueued", "due", "first_started"),
                    ("last_attempted", "finished", "cancel_requested"),
                    "key_kept_until",
                )
            },
        ),
    )

    enqueued = _time("enqueued_at")
    due = _time("run_after")
    first_started = _time("started_at")
    last_attempted = _time("last_attempted_at")
    finished = _time("finished_at")
    cancel_requested = _time("cancel_requested_at")
    key_kept_until = _time("unique_until")
    scheduled = _time("scheduled_for")

    # Permissions: nobody adds or edits a job by hand; actions need the permission to change.

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_deletable = obj is None or obj.state in DELETABLE
        return is_deletable and super().has_delete_permission(request, obj)

    # The list

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[JobChangeList]:
        return JobChangeList

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        """Look for an id first, by itself: any other condition beside it would read the whole table."""
        term = search_term.strip()
        if not term:
            return queryset, False
        pk = as_id(term)
        if pk is not None and queryset.filter(pk=pk).exists():
            return queryset.filter(pk=pk), False
        declared = [path for path in declared_tasks() if term.lower() in path.lower()]
        found = Q(unique_key=term) | Q(task_path__in=declared) | Q(task_path__startswith=term)
        return queryset.filter(found), False

    # The page

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("obj") is not None:
            context |= newest_attempts(kwargs["obj"])
        return super().render_change_form(request, context, *args, **kwargs)

    def offers(self, name: str, row: Job) -> bool:
        action = {"retry": RETRY, "cancel": CANCEL, "run_now": RUN_NOW}[name]
        return reason_to_leave(action, row) is None

    # Columns and fields

    @admin.display(description=gettext_lazy("state"))
    def state_now(self, job: Any) -> str:
        return display.with_note(display.state_badge(job.state, job.get_state_display()), _state_note(job))

    @admin.display(description=gettext_lazy("concurrency key"))
    def key_of_slots(self, job: Job) -> str:
        if not job.concurrency_key:
            return display.EMPTY
        return self.link_to_list(Limit, job.concurrency_key, q=job.concurrency_key)

    @admin.display(description=gettext_lazy("timeout"))
    def timeout_now(self, job: Job) -> str:
        return display.EMPTY if job.timeout is None else f"{job.timeout:g} s"

    @admin.display(description=gettext_lazy("attempt"))
    def attempts_used(self, job: Job) -> str:
        return f"{job.attempt}/{job.max_attempts}"

    @admin.display(description=gettext_lazy("worker"))
    def worker(self, job: Job) -> str:
        if not job.worker_id:
            return display.EMPTY
        return self.link_to_list(Worker, job.worker_id, worker_id=job.worker_id)

    @admin.display(description=gettext_lazy("schedule"))
    def schedule_link(self, job: Job) -> str:
        if job.schedule is None:
            return display.EMPTY
        link = self.link_to_page(Schedule, job.schedule_id, job.schedule)
        return link if job.scheduled_for else display.with_note(link, _("by hand"))

    @admin.display(description=gettext_lazy("task"))
    def task(self, job: Job) -> str:
        try:
            find_task(job.task_path)
        except UnknownTask as error:
            note = display.with_note(display.badge(_("not declared"), "bad"), error)
            return format_html("{} {}", job.task_path, note)
        return job.task_path

    @admin.display(description=gettext_lazy("positional arguments"))
    def positional_arguments(self, job: Job) -> str:
        return display.as_json(job.args)

    @admin.display(description=gettext_lazy("keyword arguments"))
    def keyword_arguments(self, job: Job) -> str:
        return display.as_json(job.kwargs)

    @admin.display(description=gettext_lazy("result"))
    def returned(self, job: Job) -> str:
        if hasattr(job, "result"):
            return display.as_json(job.result.value)
        return _("None") if job.state == JobState.SUCCEEDED else display.EMPTY

    @admin.display(description=gettext_lazy("progress"))
    def progress_now(self, job: Job) -> str:
        return display.progress_bar(job.progress)

    @admin.display(description=gettext_lazy("meta"))
    def meta_now(self, job: Job) -> str:
        return display.as_json(job.meta) if job.meta else display.EMPTY

    # Actions

    @admin.action(permissions=["operate"], description=gettext_lazy("Retry selected jobs"))
    def retry(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._act(request, RETRY, queryset)

    @admin.action(permissions=["operate"], description=gettext_lazy("Cancel selected jobs"))
    def cancel(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._act(request, CANCEL, queryset)

    @admin.action(permissions=["operate"], description=gettext_lazy("Run selected scheduled jobs now"))
    def run_now(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._act(request, RUN_NOW, queryset)

    @admin.action(permissions=["delete"], description=gettext_lazy("Delete selected jobs"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        if "post" not in request.POST:
            return self._ask_before_deletion(request, queryset)
        newest = request.POST.get("newest", "")
        if newest.isdecimal():
            # Jobs that came after the person was asked are not what they agreed to.
            queryset = queryset.filter(pk__lte=int(newest))
        self._act(request, DELETE, queryset)
        return None

    def _act(self, request: HttpRequest, action: Action, queryset: QuerySet) -> None:
        ids = list(queryset.order_by("-pk").values_list("pk", flat=True)[: MOST_MOVED + 1])
        tally = act(action, ids[:MOST_MOVED])
        report(self, request, action, tally)
        if len(ids) > MOST_MOVED:
            text = _("More jobs match: only the newest %(count)d were looked at. Repeat the action for the others.")
            self.message_user(request, text % {"count": MOST_MOVED}, messages.WARNING)

    def _ask_before_deletion(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse:
        rows = list(queryset.order_by("-pk").values_list("pk", "state")[:MOST_MOVED])
        states = Counter(state for _pk, state in rows)
        labels = dict(JobState.choices)
        running = states.pop(JobState.RUNNING, 0)
        title = ngettext("Delete %(count)d job?", "Delete %(count)d jobs?", states.total()) % {"count": states.total()}
        return self.confirmation(
            request,
            queryset,
            "delete.html",
            title,
            counts=[(labels.get(state, state), count) for state, count in sorted(states.items())],
            running=running,
            newest=rows[0][0] if rows else "",
        )


def _state_note(job: Any) -> str:
    """Return what the state alone does not say: since when, how long, when next. ``job.now`` is the database's."""
    if job.state == JobState.SCHEDULED and job.run_after is not None:
        wait = job.run_after - job.now
        return _("in %(time)s") % {"time": display.length(wait)} if wait.total_seconds() > 0 else _("due")
    if job.state == JobState.READY:
        return _("for %(time)s") % {"time": display.length(job.now - (job.run_after or job.enqueued_at))}
    if job.state == JobState.RUNNING and job.last_attempted_at is not None:
        note = _("for %(time)s, asked to stop") if job.cancel_requested_at else _("for %(time)s")
        return note % {"time": display.length(job.now - job.last_attempted_at)}
    # Nobody worked on a job that was cancelled before it started, or whose worker was lost.
    if job.state in FINISHED and job.worker_id and job.finished_at is not None and job.last_attempted_at is not None:
        return _("took %(time)s") % {"time": display.length(job.finished_at - job.last_attempted_at)}
    return ""
