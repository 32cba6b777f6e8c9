"""Schedules as a set: declared, paused, run now. ``firing`` runs what is due; ``schedule_problems`` judges settings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import DataError, IntegrityError, models, transaction
from django.db.models import Q
from django.db.models.functions import Now

from .. import conf
from ..exceptions import InvalidOption, UnknownSchedule
from ..options import is_name
from ..task import Task, declared_tasks
from . import firing
from .database import as_column, database_now, exclusive, from_now, has_come, lock_rows, time_until
from .schedule_problems import as_stored, refuse_name, refuse_problems

if TYPE_CHECKING:
    from .schedule import Schedule

logger = logging.getLogger("django_jobs")

LONGEST_REASON = 255


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    # Scopes

    def live(self) -> ScheduleQuerySet:
        """Return the schedules that nobody has paused or withdrawn."""
        return self.filter(enabled=True, withdrawn_at=None)

    def due(self, now: datetime | None = None) -> ScheduleQuerySet:
        """Return the live schedules whose moment has come, by the database's clock unless ``now`` is given.

        Also those that were written at a time that has not come yet: the clock was put back since.
        """
        come = has_come(self.db) if now is None else as_column(now)
        ahead = from_now(firing.GRACE) if now is None else as_column(now + firing.GRACE)
        is_ahead = Q(last_run_at__gt=ahead) | Q(updated_at__gt=ahead)
        return self.live().filter(Q(next_run_at__lte=come) | (is_ahead & Q(next_run_at__isnull=False)))

    def next_due_in(self) -> timedelta | None:
        """Return how long until the next moment of a live schedule that has not come yet; None if there is none."""
        coming = self.live().filter(next_run_at__gt=Now(), next_run_at__lt=from_now(timedelta(days=1)))
        wait: timedelta | None = (
            coming.order_by("next_run_at").values_list(time_until("next_run_at"), flat=True).first()
        )
        return wait

    # Declaring

    def declare(self, name: str, upsert: bool = False, **settings: Any) -> Schedule:
        """Make sure that the schedule exists and return it. ``task`` is a declared task or its path.

        With ``upsert`` an existing schedule takes the given settings and keeps its others; without, it stays as it is.
        One that the code has withdrawn is taken over: it takes the settings, and whoever calls owns it from now on.
        Raise InvalidOption, having changed nothing, for a setting that schedules do not have and for what cannot work.
        """
        refuse_name(name)
        values = as_stored(name, settings)
        with exclusive():
            schedule = lock_rows(self.filter(name=name)).first()
            if schedule is None:
                return self._add(name, values)
            if schedule.withdrawn_at is not None:
                self._change(schedule, values | {"withdrawn_at": None, "is_declared": False, "declaration": None})
            elif upsert:
                self._change(schedule, values)
            return schedule

    def declare_all(self) -> None:
        """Bring the rows in step with what the code declares: ``@task(cron=...)`` and ``DJANGO_JOBS["SCHEDULES"]``.

        New ones are made; a row takes the settings that are given, and a default where one is given no more. What
        nobody declares any more is withdrawn: it stays with its history and does not run. Whether it is enabled is
        said when it is made, and then by people: a pause lasts. Raise InvalidOption, having changed nothing, if one cannot work.
        """
        declared = {name: checked_entry(name, settings) for name, settings in declared_schedules().items()}
        for name, values in declared.items():
            try:
                self._keep_in_step(name, values)
            except (DataError, ValueError, OverflowError) as error:
                # Of a time in the row that Python cannot hold: no reason for workers not to start.
                firing.note_fault(self.filter(name=name), f"Its row cannot be read: {error}")
        gone = self.filter(is_declared=True, withdrawn_at=None).exclude(name__in=declared)
        gone.update(withdrawn_at=Now(), next_run_at=None)

    def _keep_in_step(self, name: str, values: dict[str, Any]) -> None:
        given = sorted(values)
        with exclusive():
            schedule = lock_rows(self.filter(name=name)).first()
            if schedule is None:
                schedule = self._add(name, values | {"is_declared": True, "declaration": given})
            before = schedule.declaration if isinstance(schedule.declaration, list) else []
            other = {"cron": "run_at", "run_at": "cron"}
            before = [*before, *(other[key] for key in given if key in other)]
            dropped = {key: _default(self.model, key) for key in before if key not in values}
            state = {"is_declared": True, "declaration": given, "withdrawn_at": None}
            wanted = {key: value for key, value in (dropped | values).items() if key != "enabled"} | state
            # What people have set of it may not go with this: that is a problem of this row, and no worker's.
            self._write(schedule, wanted)

    def _add(self, name: str, values: Mapping[str, Any]) -> Schedule:
        schedule = self.model(name=name, **values)
        refuse_problems(name, schedule.settings())
        try:
            with transaction.atomic(using=self.db):
                schedule.save(using=self.db)
        except IntegrityError:
            # Another process has declared it meanwhile.
            return self.get(name=name)
        if schedule.next_run_at is None:
            logger.warning("Schedule %r never runs: its time, or its end, has passed.", name)
        return schedule

    def _change(self, schedule: Schedule, values: Mapping[str, Any]) -> None:
        if any(getattr(schedule, name) != value for name, value in values.items()):
            refuse_problems(schedule.name, {**schedule.settings(), **values})
            self._write(schedule, values)

    def _write(self, schedule: Schedule, values: Mapping[str, Any]) -> None:
        changed = {name: value for name, value in values.items() if getattr(schedule, name) != value}
        for name, value in changed.items():
            setattr(schedule, name, value)
        if changed:
            schedule.save(using=self.db)

    def bulk_create(self, objs: Iterable[Any], *args: Any, **options: Any) -> list[Any]:
        """Insert many at once. The next run of each is found as if it was saved by itself."""
        schedules = list(objs)
        now = database_now(self.db)
        for schedule in schedules:
            schedule.begin_after(now)
        return super().bulk_create(schedules, *args, **options)

    # Firing

    def fire_due(self, now: datetime | None = None) -> int:
        """Make the jobs of the schedules that are due, for a second at most, and return how many; see ``firing``.

        ``now`` is for tests: without it the database's clock decides.
        """
        return firing.fire_due(self, now)

    def run_now(self, name: str) -> Any:
        """Enqueue a job of the schedule now, whatever its times and overlap say, and return its TaskResult.

        Its next run stays as it is. Raise UnknownSchedule, or InvalidOption if it has a problem.
        """
        return firing.run_now(self, self.named(name))

    # Deleting

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete them; their jobs stay, without a schedule. Whoever fires one of them comes before or finds it gone."""
        with exclusive():
            # Else a job that is made meanwhile would keep its row from being deleted.
            rows = self.model.objects.using(self.db).filter(pk__in=self.order_by().values("pk"))
            list(lock_rows(rows.order_by("pk")).values_list("pk"))
            return super().delete()

    # As Django's own: not of the manager, nor of a template.
    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    # Pausing

    def pause(self, name: str, reason: str = "") -> bool:
        """Let it run no more until it is resumed. False if it is paused already. Raise UnknownSchedule."""
        if reason and not is_name(reason, LONGEST_REASON):
            raise InvalidOption(f"The reason of a pause is a text of at most {LONGEST_REASON} characters.")
        return self._switch(name, False, reason)

    def resume(self, name: str) -> bool:
        """Let it run again from its next moment on. False if it is not paused. Raise UnknownSchedule."""
        return self._switch(name, True, "")

    def _switch(self, name: str, enabled: bool, reason: str) -> bool:
        with exclusive():
            schedule = lock_rows(self.filter(name=name)).first()
            if schedule is None:
                schedule = self.named(name)
            if schedule.enabled == enabled:
                return False
            schedule.enabled, schedule.paused_reason = enabled, reason
            schedule.save(using=self.db)
        return True

    def named(self, name: str) -> Schedule:
        """Return the schedule of this name. Raise UnknownSchedule, with a suggestion, if there is none."""
        found = self.filter(name=name).first()
        if found is None:
            suggestion = conf.closest(name, self.values_list("name", flat=True))
            raise UnknownSchedule(
                f"There is no schedule {name!r}." + (f" Did you mean {suggestion!r}?" if suggestion else "")
            )
        return found


def declared_schedules() -> dict[str, dict[str, Any]]:
    """Return what tasks and settings declare, by name, which nobody has judged yet. What settings say of a name wins."""
    of_tasks = {path: task.schedule for path, task in declared_tasks().items() if isinstance(task, Task) and task.cron}
    return of_tasks | conf.schedules()


def checked_entry(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a declaration in the form of a row. Raise InvalidOption if it cannot work."""
    from .schedule import Schedule

    refuse_name(name)
    values = as_stored(name, settings)
    refuse_problems(name, Schedule(name=name, **values).settings())
    return values


def _default(model: type[models.Model], name: str) -> Any:
    field: Any = model._meta.get_field(name)
    return field.get_default()
