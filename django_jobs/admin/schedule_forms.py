"""The forms of a schedule's pages: its settings and its pause. What may be stored is said by the model's ``clean``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS
from django.forms.fields import InvalidJSONInput
from django.utils.timezone import get_current_timezone_name
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Queue, Schedule
from ..models.schedule_problems import SETTINGS
from ..task import Task, declared_tasks

# Fields of which the model judges one by the others.
_TOGETHER = ({"task_path", "args", "kwargs"}, {"cron", "run_at"})


class ArgumentsField(forms.JSONField):
    """JSON arguments; an empty field is no arguments."""

    widget = forms.Textarea(attrs={"rows": 3, "cols": 60, "spellcheck": "false"})

    def __init__(self, *, nothing: type, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)
        self._nothing = nothing

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except (ValueError, RecursionError):
            # A number with thousands of digits, or lists in lists in lists.
            raise forms.ValidationError(self.error_messages["invalid"], params={"value": value}) from None

    def clean(self, value: Any) -> Any:
        cleaned = super().clean(value)
        return self._nothing() if cleaned is None else cleaned

    def bound_data(self, data: Any, initial: Any) -> Any:
        # What was typed, as it was: read and written anew, half of a character could not be shown.
        return InvalidJSONInput(data or "")

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, InvalidJSONInput):
            return value
        return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace").decode()


class ScheduleForm(forms.ModelForm):
    task_path = forms.ChoiceField(label=gettext_lazy("Task"))
    args = ArgumentsField(
        label=gettext_lazy("Positional arguments"),
        nothing=list,
        initial=list,
        help_text=gettext_lazy('A JSON list, such as [1, "text"]. Empty: none.'),
    )
    kwargs = ArgumentsField(
        label=gettext_lazy("Keyword arguments"),
        nothing=dict,
        initial=dict,
        help_text=gettext_lazy('A JSON object, such as {"country": "FR"}. Empty: none.'),
    )
    timezone = forms.ChoiceField(
        label=gettext_lazy("Time zone"), help_text=gettext_lazy("Of the expression: its hours are those of this zone.")
    )
    queue_name = forms.ChoiceField(label=gettext_lazy("Queue"), required=False)

    class Meta:
        model = Schedule
        fields = ("name", *(setting for setting in SETTINGS if setting != "enabled"))
        widgets = {"cron": forms.TextInput(attrs={"class": "vTextField", "spellcheck": "false"})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        row = self.instance
        self._offer("task_path", _tasks(), row.task_path, [("", "---------")])
        self._offer("timezone", _zones(), row.timezone, [])
        queues = [(name, name) for name in Queue.objects.values_list("name", flat=True)]
        self._offer("queue_name", queues, row.queue_name, [("", _("as the task says"))])
        for name in ("run_at", "start_at", "end_at"):
            if name in self.fields:
                text = _("%(help)s By the clock of %(zone)s.")
                values = {"help": self.fields[name].help_text, "zone": get_current_timezone_name()}
                self.fields[name].help_text = text % values
        if not row.pk and "timezone" in self.fields:
            self.fields["timezone"].initial = row.timezone or settings.TIME_ZONE

    def clean_jitter(self) -> float:
        return self.cleaned_data["jitter"] or 0.0

    def add_error(self, field: Any, error: Any) -> None:
        """Add what the model says too: of fields that the page shows and does not edit, and of none that has failed already."""
        problems = getattr(error, "error_dict", {})
        told = set(self.errors)
        for together in _TOGETHER:
            # What the model says of these follows from the one that failed.
            told |= together if told & together else set()
        for name in [name for name in problems if name != NON_FIELD_ERRORS and field is None]:
            if name in told:
                del problems[name]
            elif name not in self.fields:
                problems.setdefault(NON_FIELD_ERRORS, []).extend(problems.pop(name))
        if problems or not hasattr(error, "error_dict"):
            super().add_error(field, error)

    def _offer(self, name: str, choices: list[tuple[str, str]], stored: str, first: Iterable[tuple[str, str]]) -> None:
        """Offer the choices, and what is stored even if it is none of them: a page that is sent back says the same."""
        if name not in self.fields:
            return
        known = {value for value, _label in choices}
        gone = (
            [(stored, _("%(name)s (not there any more)") % {"name": stored})] if stored and stored not in known else []
        )
        field: Any = self.fields[name]
        field.choices = [*first, *gone, *choices]


@cache
def _zones() -> list[tuple[str, str]]:
    # Looked up once: each look reads a directory of hundreds of files.
    return [(name, name) for name in sorted(available_timezones())]


def _tasks() -> list[tuple[str, str]]:
    # Django's own decorator makes tasks of other backends too, which store no jobs.
    return [(path, path) for path, task in declared_tasks().items() if isinstance(task, Task)]


class PauseForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=255,
        required=False,
        help_text=gettext_lazy("Shown to everybody who looks at the schedule."),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )
