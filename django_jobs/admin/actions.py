"""What a person does to jobs: which of them an action moves, which it leaves and why.

An action locks its jobs, asks ``reason_to_leave`` about each, and calls the verb for the others: what it tells the
person is what happened, also while workers claim and finish jobs at the same time. ``job`` draws the pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.http import HttpRequest
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy

from ..models import Job
from ..models.database import exclusive, lock_rows
from ..models.unique import holders
from ..states import FINISHED, TRANSITIONS, UNSTARTED, JobState

# Rows are locked and moved in pieces, so that no claim or completion waits long behind them.
PIECE = 500
# As many as a list shows: "all that match" in a table of millions is asked for in several goes.
MOST_MOVED = 10_000
# Of how many jobs that were left a message says more.
MOST_NOTES = 5

DELETABLE = (*UNSTARTED, *FINISHED)


class Action(NamedTuple):
    """One action: the verb it calls, the states it takes jobs from, and its words."""

    verb: str
    sources: tuple[JobState, ...]
    done: Any
    rule: Any
    log: Any


def _action(verb: str, done: Any, rule: Any, log: Any) -> Action:
    return Action(verb, TRANSITIONS[verb].sources, done, rule, log)


RETRY = _action(
    "requeue",
    ngettext_lazy("%(count)d job is ready to run again.", "%(count)d jobs are ready to run again.", "count"),
    gettext_lazy("Only finished jobs can be retried."),
    gettext_lazy("Retried; it was %(state)s."),
)
CANCEL = _action(
    "cancel",
    ngettext_lazy("%(count)d job was cancelled.", "%(count)d jobs were cancelled.", "count"),
    gettext_lazy("Only unfinished jobs can be cancelled."),
    gettext_lazy("Cancelled; it was %(state)s."),
)
RUN_NOW = _action(
    "stage",
    ngettext_lazy("%(count)d job is ready to run now.", "%(count)d jobs are ready to run now.", "count"),
    gettext_lazy("Only scheduled jobs can be told to run now."),
    gettext_lazy("Told to run now; it was %(state)s."),
)
DELETE = Action(
    "delete",
    DELETABLE,
    ngettext_lazy("%(count)d job was deleted.", "%(count)d jobs were deleted.", "count"),
    gettext_lazy("Running jobs cannot be deleted: cancel them first."),
    gettext_lazy("Deleted; it was %(state)s."),
)


@dataclass(slots=True)
class Tally:
    """The jobs that an action moved, as they were before, how many it left for which reason, and more about some of those."""

    moved: list[Job] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def act(action: Action, ids: Sequence[int]) -> Tally:
    """Do ``action`` to the jobs with these ids, a piece at a time; each piece is one transaction."""
    tally = Tally()
    for start in range(0, len(ids), PIECE):
        _act_on_piece(action, ids[start : start + PIECE], tally)
    return tally


def reason_to_leave(action: Action, job: Job) -> str | None:
    """Return why the action leaves the job as it is, in words; None when it moves it."""
    if job.state not in action.sources:
        return str(job.get_state_display())
    if action is CANCEL and job.state == JobState.RUNNING and job.cancel_requested_at is not None:
        return _("asked to stop already")
    return None


def report(admin: ModelAdmin, request: HttpRequest, action: Action, tally: Tally) -> None:
    """Tell the person what happened and write it to the admin log."""
    asked = sum(action is CANCEL and job.state == JobState.RUNNING for job in tally.moved)
    if len(tally.moved) > asked:
        count = len(tally.moved) - asked
        admin.message_user(request, action.done % {"count": count}, messages.SUCCESS)
    if asked:
        text = ngettext("%(count)d running job was asked to stop.", "%(count)d running jobs were asked to stop.", asked)
        admin.message_user(request, text % {"count": asked}, messages.SUCCESS)
    if tally.left:
        admin.message_user(request, " ".join([_words_of(action, tally.left), *tally.notes]), messages.WARNING)
    _log(request, action, tally.moved)


def _act_on_piece(action: Action, ids: Sequence[int], tally: Tally) -> None:
    with exclusive():
        found = Job.objects.filter(pk__in=ids).only("task_path", "state", "cancel_requested_at")
        jobs = list(lock_rows(found.order_by("pk")))
        reasons = {job.pk: reason_to_leave(action, job) for job in jobs}
        movable = Job.objects.filter(pk__in=[pk for pk, reason in reasons.items() if reason is None])
        getattr(movable, action.verb)()
        refused = _refused(action, movable) if action is RETRY else {}
    tally.moved += [job for job in jobs if reasons[job.pk] is None and job.pk not in refused]
    tally.left.update(reason for reason in reasons.values() if reason is not None)
    tally.notes += _notes_on(refused, MOST_NOTES - len(tally.notes))
    tally.left[_("with a unique key that another job has")] += len(refused)
    tally.left[_("gone")] += len(ids) - len(jobs)
    tally.left = +tally.left


def _refused(action: Action, jobs: Any) -> dict[int, str]:
    """Return the unique keys of the jobs that the verb has left, by id."""
    left = jobs.filter(state__in=action.sources, unique_key__isnull=False).order_by("pk")
    return dict(left.values_list("pk", "unique_key"))


def _notes_on(refused: Mapping[int, str], most: int) -> list[str]:
    """Return who has the unique keys of the first ``most`` of these jobs, in words."""
    told = dict(list(refused.items())[:most])
    found = {holder.unique_key: holder for holder in holders(Job.objects.all(), set(told.values()))} if told else {}
    return [_note_on(pk, key, found.get(key)) for pk, key in told.items()]


def _note_on(pk: int, key: str, holder: Any) -> str:
    values = {
        "job": pk,
        "key": key,
        "holder": holder and holder.pk,
        "time": holder and _to_the_second(holder.unique_until),
    }
    if holder is None:
        return _("Job #%(job)d: its unique key '%(key)s' was taken a moment ago; try again.") % values
    if holder.state in FINISHED:
        text = _("Job #%(job)d: job #%(holder)d, which has ended, keeps their unique key '%(key)s' until %(time)s.")
        return text % values
    return _("Job #%(job)d: another unfinished job, #%(holder)d, has its unique key '%(key)s'.") % values


def _to_the_second(moment: datetime | None) -> str:
    return "" if moment is None else f"{localtime(moment) if is_aware(moment) else moment:%Y-%m-%d %H:%M:%S}"


def _words_of(action: Action, left: Counter[str]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left.items()))
    count = left.total()
    text = ngettext("%(count)d job was left as it was", "%(count)d jobs were left as they were", count)
    return f"{text % {'count': count}} ({reasons}). {action.rule}"


def _log(request: HttpRequest, action: Action, jobs: Sequence[Job]) -> None:
    for state in {job.state for job in jobs}:
        moved = [job for job in jobs if job.state == state]
        LogEntry.objects.log_actions(
            user_id=request.user.pk,  # type: ignore[arg-type]
            queryset=moved,
            action_flag=DELETION if action is DELETE else CHANGE,
            change_message=str(action.log % {"state": moved[0].get_state_display()}),
        )
