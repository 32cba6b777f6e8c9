"""How values look in the admin: badges, times, ages, JSON. Everything returned is escaped."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext as _

from ..models.backlog import MOST_COUNTED
from ..states import AttemptOutcome, JobState, WorkerState

EMPTY = "-"
# A page with more than this is slow to draw, and nobody reads it.
LONGEST_JSON = 50_000

# value of a state or outcome -> the tone in which it is drawn; the rest is neutral
_TONES: dict[str, str] = {
    JobState.RUNNING: "busy",
    JobState.SUCCEEDED: "good",
    JobState.FAILED: "bad",
    AttemptOutcome.CRASHED: "bad",
    AttemptOutcome.POSTPONED: "warn",
    WorkerState.STARTING: "busy",
    WorkerState.PAUSED: "warn",
    WorkerState.STOPPING: "warn",
    WorkerState.LOST: "bad",
}


def badge(text: Any, tone: str = "") -> str:
    return format_html('<span class="django-jobs-badge {}">{}</span>', tone and f"django-jobs-{tone}", text)


def state_badge(value: str, label: Any) -> str:
    """Return the badge of a job's, worker's or attempt's state; its tone is only an addition to the word."""
    return badge(label, _TONES.get(value, ""))


def with_note(shown: Any, note: Any) -> str:
    """Return what is shown, with a quiet note after it unless the note is empty."""
    return format_html('{} <span class="django-jobs-note">{}</span>', shown, note) if note else shown


def moment(value: datetime | None) -> str:
    """Return a time to the second, in the current time zone."""
    if value is None:
        return EMPTY
    local = localtime(value) if is_aware(value) else value
    date, time = f"{local:%Y-%m-%d}", f"{local:%H:%M:%S}"
    return format_html('<time datetime="{}"><span>{}</span> <span>{}</span></time>', local.isoformat(), date, time)


def length(duration: timedelta | None) -> str:
    """Return a duration in its two largest units, or in tenths of a second when it is short."""
    if duration is None:
        return EMPTY
    seconds = max(duration.total_seconds(), 0)
    if seconds < 10:
        return _("%(seconds)s s") % {"seconds": number_format(seconds, 1)}
    days, hours, minutes, rest = _split(int(seconds))
    if days:
        return _("%(days)d d %(hours)d h") % {"days": days, "hours": hours}
    if hours:
        return _("%(hours)d h %(minutes)d min") % {"hours": hours, "minutes": minutes}
    if minutes:
        return _("%(minutes)d min %(seconds)d s") % {"minutes": minutes, "seconds": rest}
    return _("%(seconds)s s") % {"seconds": rest}


def _split(seconds: int) -> tuple[int, int, int, int]:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return days, hours, minutes, seconds


def capped(count: int) -> str:
    """Return a count of ready jobs as text, with a plus sign where counting stopped."""
    text = number_format(min(count, MOST_COUNTED), force_grouping=True)
    return f"{text}+" if count > MOST_COUNTED else text


def as_json(value: Any) -> str:
    """Return a value as indented JSON, cut where it is too long to read."""
    text = _dumps(value).encode(errors="backslashreplace").decode()
    if len(text) <= LONGEST_JSON:
        return preformatted(text)
    note = _("Cut: %(shown)s of %(all)s characters are shown.") % {
        "shown": number_format(LONGEST_JSON, force_grouping=True),
        "all": number_format(len(text), force_grouping=True),
    }
    return format_html('{}<p class="django-jobs-note">{}</p>', preformatted(text[:LONGEST_JSON]), note)


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False)
    except RecursionError:
        return _("This value is nested too deeply to be shown.")


def preformatted(text: str) -> str:
    # Focusable, so that a long text can be scrolled with the keyboard.
    return format_html('<pre class="django-jobs-text" tabindex="0">{}</pre>', text)


def progress_bar(progress: Any) -> str:
    """Return progress as a bar and words; anything that does not look like progress as JSON."""
    if not progress:
        return EMPTY
    bar = ""
    match progress:
        case {"done": int() | float() as done, "total": int() | float() as total} if total > 0:
            share = f"{min(max(done, 0), total) / total:.0%}"
            words = _("%(done)s of %(total)s (%(share)s)") % {"done": done, "total": total, "share": share}
            bar = format_html('<progress max="{}" value="{}" aria-label="{}"></progress> ', total, done, _("Progress"))
        case {"done": int() | float() as done}:
            words = _("%(done)s done") % {"done": done}
        case _:
            return as_json(progress)
    return format_html("{}{} {}", bar, words, progress.get("message") or "")
