"""What a worker is told at its start, resolved and checked: from flags, environment, settings and defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .. import conf
from ..exceptions import InvalidOption, UnknownQueue
from ..models import Queue, Schedule
from ..models.claim import Kind
from ..task import declared_tasks


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The worker options of ``conf.SETTINGS`` by their lower-case names, and what only a start can say.

    ``queues`` are patterns (see ``QueueQuerySet.served_by``); ``burst`` ends the worker when no job is ready any
    more; ``once`` ends it after one job.
    """

    worker_id: str
    tags: tuple[str, ...]
    min_priority: int
    max_priority: int
    concurrency: int
    async_concurrency: int
    processes: int
    heartbeat_interval: float
    heartbeat_timeout: float
    hang_timeout: float
    poll_interval: float
    shutdown_timeout: float
    claim_ahead: float
    notify: bool
    log_format: str
    queues: tuple[str, ...] = ("*",)
    burst: bool = False
    once: bool = False

    @property
    def kind(self) -> Kind:
        """Which jobs of its queues the worker takes."""
        return Kind(lowest=self.min_priority, highest=self.max_priority)

    @property
    def served(self) -> dict[str, Any]:
        """What the worker's row says of the jobs it takes."""
        return {name: getattr(self, name) for name in ("min_priority", "max_priority")} | {"queues": list(self.queues)}

    def as_json(self) -> dict[str, Any]:
        """Return the options as JSON holds them, to hand to a child process."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> WorkerOptions:
        """Return the options that a supervisor has handed over, which may be of another release than this code.

        What it does not know is taken from environment and settings; what this code does not know is left out.
        """
        names = {field.name for field in fields(cls)}
        told = {name: value for name, value in values.items() if name in names}
        if names - told.keys():
            told = asdict(resolve_options({})) | told
        return cls(**(told | {name: tuple(told[name]) for name in ("tags", "queues")}))


def resolve_options(
    flags: Mapping[str, Any], queues: Iterable[str] = (), burst: bool = False, once: bool = False
) -> WorkerOptions:
    """Return the options; ``flags`` by upper-case names, None for what was not given.

    Raise InvalidOption for a value that cannot work and for flags that are no options.
    """
    known = [name for name, setting in conf.SETTINGS.items() if setting.is_worker_option]
    for name in flags:
        if name not in known:
            suggestion = conf.closest(name, known)
            hint = f" Did you mean {suggestion.lower()!r}?" if suggestion else ""
            raise InvalidOption(f"A worker has no option {name.lower()!r}.{hint}")
    resolved = {name.lower(): option.value for name, option in conf.worker_options(flags).items()}
    resolved["tags"] = tuple(resolved["tags"])
    return WorkerOptions(**resolved, queues=tuple(queues) or ("*",), burst=burst, once=once)


def known_queues() -> set[str]:
    """Return the queues that settings and tasks declare."""
    of_tasks = {task.queue_name for task in declared_tasks().values()}
    return {"default", *conf.queues(), *of_tasks}


def declare_known_queues() -> None:
    """Declare the queues of settings and tasks; those of the settings with what they say of them.

    Raise InvalidOption for what no queue can have.
    """
    configured = conf.queues()
    Queue.objects.declare_configured({name: configured.get(name, {}) for name in known_queues()})


def declare_known_schedules() -> None:
    """Bring the schedules in step with what tasks and settings declare. Raise InvalidOption for what cannot work."""
    Schedule.objects.declare_all()


def check_queues(patterns: Iterable[str]) -> None:
    """Raise UnknownQueue, with a suggestion, for a full name among the patterns that nobody declared."""
    known = known_queues() | set(Queue.objects.values_list("name", flat=True))
    for pattern in patterns:
        name = pattern.removeprefix("!")
        if not name or "*" in name[:-1]:
            raise InvalidOption(f"--queue {pattern!r}: give a name, a prefix with * at its end, or either after !.")
        if name.endswith("*") or name in known:
            continue
        suggestion = conf.closest(name, known)
        raise UnknownQueue(
            f"Nobody declared a queue {name!r}."
            + (f" Did you mean {suggestion!r}?" if suggestion else "")
            + f" Known: {', '.join(sorted(known))}. Add it to DJANGO_JOBS['QUEUES'], or name it in a task."
        )
