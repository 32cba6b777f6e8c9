"""The forms of a queue's pages: its settings, its pause, and what becomes of its jobs when it is deleted."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Queue
from ..models.queue import every_worker
from ..models.queue_problems import SETTINGS
from ..models.queue_removal import CANCEL, DELETE, KEEP


class ExpressionsField(forms.CharField):
    """A list of texts, one on each line."""

    widget = forms.Textarea(attrs={"rows": 4, "cols": 60, "spellcheck": "false"})

    def prepare_value(self, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        is_list_of_texts = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
        # Something else has been written past every check: it is shown as it is.
        return "\n".join(value) if is_list_of_texts else json.dumps(value)

    def to_python(self, value: Any) -> Any:
        lines = value if isinstance(value, list) else str(super().to_python(value)).splitlines()
        return [line.strip() for line in lines if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(initial != self.to_python(data))


class QueueForm(forms.ModelForm):
    tags = ExpressionsField(
        label=gettext_lazy("Tags"),
        required=False,
        initial=every_worker,
        help_text=gettext_lazy(
            "Which workers serve the queue: regular expressions, one on each line, of which one must be the whole of one "
            "of the worker's tags, such as “hostname=web-.*” or “gpu”. “*” is every worker; without any line, none is."
        ),
    )
    executor = forms.ChoiceField(
        label=gettext_lazy("Executor"),
        required=False,
        choices=[("", gettext_lazy("as the task says")), ("thread", gettext_lazy("threads"))],
        help_text=gettext_lazy("Threads: each async def job gets a thread with an event loop of its own."),
    )

    class Meta:
        model = Queue
        fields = ("name", "resume_at", *SETTINGS)
        help_texts = {
            "concurrency": gettext_lazy("How many of its jobs a worker runs at once. Empty: as many as it can."),
            "max_running": gettext_lazy("How many of its jobs all workers together run at once. Empty: no limit."),
            "rate_limit": gettext_lazy("How many of its jobs start in each rate window. Both or none of the two."),
            "timeout": gettext_lazy("Of jobs whose task does not say another. Empty: none."),
            "keep_succeeded": gettext_lazy(
                "Days and hours, such as “7 00:00:00”. Empty: as the setting KEEP_SUCCEEDED says. 0: for ever."
            ),
            "keep_failed": gettext_lazy(
                "Failed and cancelled jobs, such as “30 00:00:00”. Empty: as the setting KEEP_FAILED says. 0: for ever."
            ),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "raise_by" in self.fields:
            self.fields["raise_by"].required = False

    def clean_raise_by(self) -> int:
        raise_by = self.cleaned_data["raise_by"]
        return Queue._meta.get_field("raise_by").default if raise_by is None else raise_by


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


class DeletionForm(forms.Form):
    jobs = forms.ChoiceField(
        label=gettext_lazy("Its jobs"),
        required=False,
        initial=KEEP,
        widget=forms.RadioSelect,
        help_text=gettext_lazy(
            "Jobs that are kept wait for a queue of this name: within seconds, if some are ready, it is declared again "
            "with the default settings. Running jobs are asked to stop, and their rows stay until they are pruned."
        ),
    )

    def __init__(self, *args: Any, may_change: bool, may_delete: bool, **kwargs: Any) -> None:
        """Offer what the user may do to jobs."""
        super().__init__(*args, **kwargs)
        choices = [(KEEP, _("Keep them"))]
        if may_change:
            choices.append((CANCEL, _("Cancel those that have not ended")))
        if may_change and may_delete:
            choices.append((DELETE, _("Cancel those that have not ended, and delete all that do not run")))
        field: Any = self.fields["jobs"]
        field.choices = choices

    def clean_jobs(self) -> str:
        return self.cleaned_data["jobs"] or KEEP
