"""The runs on a schedule's page: the next ones, also of what is typed there, and the jobs of the last ones."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.forms import ModelForm
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _

from .. import conf
from ..models import Schedule
from ..models.database import database_now
from ..models.schedule_history import last_jobs, moment_of
from ..models.schedule_problems import TIMES
from . import display

MOST_NEXT, MOST_LAST = 5, 20


class ShownRun(NamedTuple):
    pk: int
    state: str
    scheduled_for: str
    started: str
    late: str
    took: str


def words_of(schedule: Schedule) -> str:
    """Return when it runs, in words; nothing if its times cannot work."""
    return "" if schedule.has_bad_times else schedule.words


def preview(form: ModelForm[Any]) -> dict[str, str]:
    """Return what the page shows of a form's times before it is saved: ``words`` and ``runs``, or ``problem``, each as HTML."""
    form.full_clean()
    problems = [error for name in TIMES for error in form.errors.get(name, ())]
    # Whoever saves it takes it over.
    form.instance.withdrawn_at = None
    return {
        "words": escape(words_of(form.instance)) or display.EMPTY,
        "runs": display.EMPTY if problems else next_runs(form.instance),
        "problem": escape(" ".join(map(str, problems))),
    }


def next_runs(schedule: Schedule) -> str:
    """Return the next runs, in the schedule's zone, a line for each. Of a form that was refused: of what was typed."""
    if schedule.has_bad_times or schedule.withdrawn_at is not None:
        return display.EMPTY
    runs = schedule.next_runs(MOST_NEXT, after=database_now(conf.database()))
    if not runs:
        return _("It never runs again.")
    zone = ZoneInfo(schedule.timezone)
    return format_html_join(mark_safe("<br>"), "{}", ((_in_zone(run, zone),) for run in runs))


def _in_zone(run: datetime, zone: ZoneInfo) -> str:
    local = run.astimezone(zone)
    return format_html('<time datetime="{}">{}</time>', local.isoformat(), f"{local:%a %Y-%m-%d %H:%M:%S %Z}")


def last_runs(schedule: Schedule) -> dict[str, Any]:
    """Return what the template shows of a schedule's jobs, in two queries."""
    rows = last_jobs([schedule], MOST_LAST + 1)[schedule.pk]
    return {"runs": [_shown(row) for row in rows[:MOST_LAST]], "has_older_runs": len(rows) > MOST_LAST}


def _shown(job: Any) -> ShownRun:
    has_run = job.finished_at is not None and job.last_attempted_at is not None
    return ShownRun(
        job.pk,
        display.state_badge(job.state, job.get_state_display()),
        display.moment(job.scheduled_for) if job.scheduled_for else _("by hand"),
        display.moment(job.started_at),
        display.length(None if job.started_at is None else job.started_at - moment_of(job)),
        display.length(job.finished_at - job.last_attempted_at if has_run else None),
    )
