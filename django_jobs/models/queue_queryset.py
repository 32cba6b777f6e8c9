"""Queues as a set: declared, served, paused, removed. What a setting may be is said in ``queue_problems``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import models, transaction
from django.db.models import Q
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from .. import notifications, signals
from ..exceptions import InvalidOption
from ..options import is_name
from .database import exclusive, lock_rows
from .queue_problems import SETTINGS, as_stored, checked_entry, matches_tags, problem_of, refuse_name, refuse_problems

if TYPE_CHECKING:
    from .queue import Queue
    from .queue_removal import Removed

ALL_QUEUES = ("*",)
LONGEST_REASON = 255

_LANE_COLUMNS = ("concurrency", "max_running", "rate_limit", "rate_window", "executor", "timeout", "poll_interval")


class Lane(NamedTuple):
    """A queue as a worker sees it. None: no limit of its own, or as the worker's option or the task says."""

    name: str
    concurrency: int | None = None
    max_running: int | None = None
    rate_limit: int | None = None
    rate_window: float | None = None
    executor: str = ""
    timeout: float | None = None
    poll_interval: float | None = None

    @property
    def is_limited(self) -> bool:
        """Say whether all workers together share a limit, so that the claim must ask the queue's row."""
        return self.max_running is not None or self.rate_limit is not None


def _lane(row: Mapping[str, Any]) -> Lane:
    return Lane(row["name"], *(row[name] for name in _LANE_COLUMNS))


class Declared(NamedTuple):
    """A queue that was declared: whether it is new, which of its settings changed, which differ and were left."""

    queue: Queue
    is_new: bool
    changed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class QueueQuerySet(models.QuerySet["Queue"]):
    # Declaring

    def declare(self, name: str, upsert: bool = False, **settings: Any) -> Queue:
        """Make sure that the queue exists and return it. Durations are seconds or timedeltas.

        With ``upsert`` an existing queue takes the given settings and keeps its others; without, it stays as it is.
        Workers follow within two seconds. Raise InvalidOption, having changed nothing, for a name that cannot be
        stored, a setting that queues do not have, and settings that cannot work, alone or together.
        """
        return self.declared(name, settings, upsert).queue

    def declared(self, name: str, settings: Mapping[str, Any], upsert: bool = False) -> Declared:
        """Do ``declare`` and say what it changed."""
        refuse_name(name)
        values = as_stored(name, settings)
        if upsert:
            with exclusive():
                return self._declare_over(name, values)
        refuse_problems(name, values, values)
        return self._declare_new(name, values)

    def declare_all(self, names: Iterable[str]) -> None:
        """Make sure that all these queues exist, in two statements at the most."""
        missing = set(names) - set(self.values_list("name", flat=True))
        if missing:
            self.bulk_create([self.model(name=name) for name in sorted(missing)], ignore_conflicts=True)  # type: ignore[misc]
            notifications.hint(notifications.QUEUES)

    def declare_configured(self, queues: Mapping[str, Mapping[str, Any]]) -> None:
        """Declare queues with the settings of ``DJANGO_JOBS["QUEUES"]``, in two statements for those without any.

        Raise InvalidOption, having changed nothing, if one of them cannot work.
        """
        entries = {name: checked_entry(name, settings) for name, settings in queues.items()}
        existing = set(self.values_list("name", flat=True))
        self.declare_all([name for name, (_upsert, values) in entries.items() if not values])
        for name, (upsert, values) in entries.items():
            if values and (upsert or name not in existing):
                self.declared(name, values, upsert)

    def _declare_new(self, name: str, values: dict[str, Any]) -> Declared:
        queue, is_new = self.get_or_create(name=name, defaults=values)
        if is_new:
            notifications.hint(notifications.QUEUES)
        return Declared(queue, is_new, left=_differing(queue, values))

    def _declare_over(self, name: str, values: dict[str, Any]) -> Declared:
        if not self.filter(name=name).exists():
            refuse_problems(name, values, values)
            declared = self._declare_new(name, values)
            if declared.is_new:
                return declared
        queue = lock_rows(self.filter(name=name)).get()
        refuse_problems(name, {setting: getattr(queue, setting) for setting in SETTINGS} | values, values)
        changed = _differing(queue, values)
        for setting in changed:
            setattr(queue, setting, values[setting])
        if changed:
            queue.save(using=self.db, update_fields=changed)
            notifications.hint(notifications.QUEUES)
        return Declared(queue, is_new=False, changed=changed)

    # Serving

    def paused(self) -> QueueQuerySet:
        """Return the queues whose pause has not ended, by the database's clock."""
        return self.filter(Q(resume_at=None) | Q(resume_at__gt=Now()), paused_at__isnull=False)

    def unpaused(self) -> QueueQuerySet:
        """Return the queues that are not paused, or not any more, by the database's clock."""
        return self.filter(Q(paused_at=None) | Q(resume_at__lte=Now()))

    def served_by(self, patterns: Sequence[str], tags: Sequence[str] = ALL_QUEUES) -> list[str]:
        """Return the names of the queues that a worker with these patterns and tags takes jobs from now, sorted."""
        return [lane.name for lane in self.lanes_for(patterns, tags)]

    def lanes_for(self, patterns: Sequence[str], tags: Sequence[str] = ALL_QUEUES) -> list[Lane]:
        """Return the queues that a worker takes jobs from now, sorted by name, with what it must know of them.

        A pattern is a name, a prefix with ``*`` at its end, or either with ``!`` before it to leave queues out. A
        queue whose row has a problem is left out; the others are not touched by it.
        """
        rows = self.unpaused().order_by("name").values("name", *SETTINGS)
        return [
            _lane(row)
            for row in rows
            if matches(row["name"], patterns) and not problem_of(row) and matches_tags(row["tags"], tags)
        ]

    # Pausing

    def pause(self, name: str, reason: str = "", resume_at: datetime | Combinable | None = None) -> bool:
        """Stop workers from taking jobs of this queue. False if there is no such queue or it is paused.

        At ``resume_at``, a datetime or an expression of one, the pause ends by itself. Raise InvalidOption for anything
        else, and for a reason that cannot be stored.
        """
        return bool(self._pause([name], reason, resume_at))

    def pause_all(self, reason: str = "", resume_at: datetime | Combinable | None = None) -> int:
        """Pause all queues that are not paused, and return how many; a queue that is declared later is not."""
        return len(self._pause(list(self.unpaused().values_list("name", flat=True)), reason, resume_at))

    def _pause(self, names: Iterable[str], reason: str, resume_at: datetime | Combinable | None) -> list[str]:
        if reason and not is_name(reason, LONGEST_REASON):
            raise InvalidOption(f"The reason of a pause is a text of at most {LONGEST_REASON} characters.")
        if resume_at is not None and not isinstance(resume_at, datetime | Combinable):
            raise InvalidOption(f"resume_at, the end of a pause, is a datetime, not {resume_at!r}.")
        paused = self.unpaused()._change_each(names, paused_at=Now(), paused_reason=reason, resume_at=resume_at)
        if paused:
            # Not above: it needs the models.
            from .slot_changes import after_pause

            after_pause(self.db)
        for name in paused:
            signals.send(signals.queue_paused, self.model, queue=name, reason=reason)
        return paused

    def resume(self, name: str) -> bool:
        """Let workers take jobs of this queue again. False if there is no such queue or it is not paused."""
        return bool(self._resume([name]))

    def resume_all(self) -> int:
        """Resume all queues that are paused, and return how many."""
        return len(self._resume(list(self.paused().values_list("name", flat=True))))

    def _resume(self, names: Iterable[str]) -> list[str]:
        resumed = self.paused()._change_each(names, paused_at=None, paused_reason="", resume_at=None)
        if resumed:
            from .slot_changes import after_resume

            after_resume(self.db)
        for name in resumed:
            signals.send(signals.queue_resumed, self.model, queue=name)
        return resumed

    def _change_each(self, names: Iterable[str], **changes: Any) -> list[str]:
        """Change those of these queues that are in this queryset; return their names."""
        with transaction.atomic(using=self.db):
            # One by one: the counts say which were changed, without a look beforehand that may be outdated.
            changed = [name for name in names if self.filter(name=name).update(**changes)]
            if changed:
                notifications.hint(notifications.QUEUES)
        return changed

    # Removing

    def remove(self, name: str, jobs: str = "keep", at_most: int | None = None) -> Removed:
        """Delete the queue, and do with its jobs what ``jobs`` says: "keep", "cancel" or "delete"; see ``remove_queue``."""
        # Imported here: the queries of jobs need the model of queues.
        from .queue_removal import remove_queue

        return remove_queue(self, name, jobs, at_most)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Say whether a worker with these patterns serves the queue ``name``."""
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")] or list(ALL_QUEUES)
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    return any(_fits(name, pattern) for pattern in wanted) and not any(_fits(name, pattern) for pattern in unwanted)


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _differing(queue: Queue, values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name, value in values.items() if getattr(queue, name) != value)
