"""What a task is: a function with its options, declared with ``@task``, and the table of them.

A declared task has a path, by which job rows name it: its registered name, or else the dotted path of
its function. Only declared tasks run: a path is looked up here, never imported.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any, Unpack, overload

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from . import conf
from .compat import DjangoTask, InvalidTask, TaskContext
from .context import JobContext, current_job
from .exceptions import UnknownTask
from .options import FromArguments, OnConflict, TaskOptions, Unique, check_options
from .retries import Backoff, exponential
from .unique import check_unique

DEFAULT_BACKOFF = exponential()

Call = tuple[Sequence[Any], Mapping[str, Any]]

# path or alias -> task; filled as modules are imported, read everywhere.
_declared: dict[str, DjangoTask] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(DjangoTask):
    """Django's Task with the options of django_jobs. Made by ``@task`` and changed by ``using()``.

    - ``registered_name``: a stable name for job rows, so that the function may move; default its path.
    - ``aliases``: names under which older rows know the task.
    - ``max_attempts``: how often a job is tried in all; default ``DJANGO_JOBS["MAX_ATTEMPTS"]`` (3).
    - ``backoff``: ``(exception, task_result) -> seconds | timedelta | None`` until the next attempt; None fails the job.
    - ``retry_on``: exception classes that are retried; ``ignore_on``: those that are not, and win.
    - ``meta``: a dict stored with each job.
    - ``atomic``: what the function writes to ``DJANGO_JOBS["DATABASE"]``, and that the job has succeeded, is committed
      in one transaction: both or neither, whenever the worker dies. Not for ``async def``. What an attempt wrote that
      raises is rolled back. SQLite lets nobody else write meanwhile.
    - ``timeout``: how long an attempt may take (seconds); default the queue's, and without that none.
    - ``unique``: at most one unfinished job has the same key. True: made of the task and all arguments, however they are
      spelled; one name of an argument or several: of those only; a callable: called with the job's arguments, returns a
      text, or None for a job that is not unique. No two tasks share such a key. See ``unique.py``.
    - ``unique_for``: how long the key stays taken at least, counted from the enqueue, also when the job has succeeded or
      failed (seconds or timedelta, at most 366 days); default until the job has ended. A job that ends as cancelled frees it.
    - ``on_conflict``: what a job becomes whose key is taken. "return" (default): the result of the job that has it, with
      ``is_new`` False. "raise": DuplicateJob. "replace": the job that has it takes the new call's arguments, priority,
      ``run_after``, ``meta`` and attempts if it has not started, and is returned as it is if it runs, has ended or is of
      another task. With ``unique_for`` and no ``run_after``, "replace" lets the last call win: the job runs ``unique_for``
      after the last call, and its key is free when it has ended.
    - ``concurrency_key``: at most ``concurrency_limit`` (default 1) jobs with the same key are ready or running at once,
      of whatever task and queue; the others are blocked and follow in their order. Each is a value or a callable that is
      called with the job's arguments; a key of '' or None means no limit.
    - ``cron``: runs it again and again, as a schedule of the task's name: an expression, such as ``"*/5 * * * *"``, or a
      dict with it and more settings of a schedule, such as ``{"cron": "@daily", "timezone": "Europe/Paris"}``. See ``crontab.py``.
    - ``unique_key``: what ``using()`` set: the key itself, in place of one that ``unique`` makes (1 to 255 characters).
      Jobs of all tasks share it.
    - ``delay``: what ``using(run_after=timedelta)`` set; counted from the database's clock at enqueue.
    """

    registered_name: str | None = None
    aliases: tuple[str, ...] = ()
    max_attempts: int = field(default_factory=lambda: conf.read_or_default("MAX_ATTEMPTS"))
    backoff: Backoff = DEFAULT_BACKOFF
    retry_on: tuple[type[BaseException], ...] = (BaseException,)
    ignore_on: tuple[type[BaseException], ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    atomic: bool = False
    timeout: float | None = None
    unique: Unique = False
    unique_for: timedelta | None = None
    on_conflict: OnConflict = "return"
    concurrency_key: FromArguments[str | None] = None
    concurrency_limit: FromArguments[int] = 1
    cron: str | Mapping[str, Any] | None = field(default=None, hash=False)
    unique_key: str | None = None
    delay: timedelta | None = None

    def __post_init__(self) -> None:
        check_options(self)
        check_unique(self)
        DjangoTask.__post_init__(self)
        declare(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name and what ``using()`` may have changed; the rest, code too, is in the declaration."""
        return _restore, (self.path, {name: getattr(self, name) for name in _CHANGEABLE})

    @property
    def path(self) -> str:
        """The name by which job rows know this task."""
        return self.registered_name or self.module_path

    @property
    def schedule(self) -> dict[str, Any]:
        """What ``cron`` says, as the settings of a schedule."""
        settings = dict(self.cron) if isinstance(self.cron, Mapping) else {"cron": self.cron}
        return {"task": self.path, **settings}

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | timedelta | None = None,
        backend: str | None = None,
        max_attempts: int | None = None,
        meta: Mapping[str, Any] | None = None,
        unique_key: str | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
        timeout: float | timedelta | None = None,
    ) -> Task:
        """Return a copy of the task with other options; None leaves one as it is."""
        changes: dict[str, Any] = {
            "priority": priority,
            "queue_name": queue_name,
            "backend": backend,
            "max_attempts": max_attempts,
            "meta": meta,
            "unique_key": unique_key,
            "concurrency_key": concurrency_key,
            "concurrency_limit": concurrency_limit,
            "timeout": timeout,
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        if isinstance(run_after, timedelta):
            changes |= {"run_after": None, "delay": run_after}
        elif run_after is not None:
            if not isinstance(run_after, datetime):
                raise InvalidTask(
                    f"Task {self.module_path}: run_after is a datetime or a timedelta, not {run_after!r}."
                )
            changes |= {"run_after": run_after, "delay": None}
        return dataclasses.replace(self, **changes)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function and return what it returns, also of an ``async def`` function.

        A backend that runs the task at once hands Django's own context over; the function gets that of a job.
        """
        if self.takes_context and type(args[0]) is TaskContext:
            args = (_context_of(self, args[0].task_result), *args[1:])
        return DjangoTask.call(self, *args, **kwargs)

    def enqueue_many(self, calls: Iterable[Call]) -> Sequence[Any]:
        """Enqueue one job per ``(args, kwargs)``, 1,000 to an INSERT; return their TaskResults in order.

        All or nothing: a bad argument is refused before the first row is written. The results are a sequence that
        makes each of them when it is looked at.
        """
        backend: Any = self.get_backend()
        results: Sequence[Any] = backend.enqueue_many([(self, args, kwargs) for args, kwargs in calls])
        return results


def _context_of(task: Task, task_result: Any) -> JobContext:
    running = current_job()
    if running is not None and running.task_result is task_result:
        return running
    return JobContext(task_result=task_result, meta=copy.deepcopy(dict(task.meta)))


def enqueue_many(jobs: Iterable[tuple[DjangoTask | str, Sequence[Any], Mapping[str, Any]]]) -> Sequence[Any]:
    """Enqueue jobs of several tasks at once: ``(task or path, args, kwargs)`` each; see ``Task.enqueue_many``."""
    entries = [(find_task(task) if isinstance(task, str) else task, args, kwargs) for task, args, kwargs in jobs]
    if not entries:
        return []
    backend: Any = entries[0][0].get_backend()
    results: Sequence[Any] = backend.enqueue_many(entries)
    return results


# Django's Task has no defaults for these.
_DJANGOS = {"priority": 0, "queue_name": "default", "backend": "default", "takes_context": False}


@overload
def task(function: Callable[..., Any], /) -> Task: ...
@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[Callable[..., Any]], Task]: ...
def task(
    function: Callable[..., Any] | None = None, /, **options: Unpack[TaskOptions]
) -> Task | Callable[[Callable[..., Any]], Task]:
    """Declare a module-level function, plain or ``async def``, as a task.

    Use it bare or with options; see ``Task`` for what each means. Raise InvalidTask for an option that
    cannot work and for a name that another function has, TypeError for an option that does not exist.
    """
    for option in options:
        if option not in TaskOptions.__annotations__:
            suggestion = conf.closest(option, TaskOptions.__annotations__)
            raise TypeError(
                f"@task has no option {option!r}." + (f" Did you mean {suggestion!r}?" if suggestion else "")
            )
    given: dict[str, Any] = _DJANGOS | {name: value for name, value in options.items() if value is not None}
    if "name" in given:
        given["registered_name"] = given.pop("name")

    def decorate(function: Callable[..., Any]) -> Task:
        return _task_of(function, given)

    return decorate(function) if function is not None else decorate


def _task_of(function: Callable[..., Any], options: Mapping[str, Any]) -> Task:
    if not callable(function):
        raise InvalidTask(f"@task takes a function, not {function!r}. Options have names: @task(name={function!r}).")
    return Task(func=function, run_after=None, **options)


def declare(task: DjangoTask) -> None:
    """Put ``task`` into the table under its path and aliases, unless a copy of it is there already.

    Raise InvalidTask when another function has one of its names.
    """
    names = (path_of(task), *getattr(task, "aliases", ()))
    for name in names:
        other = _declared.get(name)
        if other is not None and other.module_path != task.module_path:
            raise InvalidTask(
                f"The name {name!r} of task {task.module_path} belongs to {other.module_path} already. "
                "Give one of them another name."
            )
    for name in names:
        # using() makes copies for one job; the declaration is the first, or one of a reloaded module.
        if name not in _declared or _declared[name].func is not task.func:
            _declared[name] = task


def withdraw(task: DjangoTask) -> None:
    """Take a declaration back: nothing runs under its names any more."""
    for name in (path_of(task), *getattr(task, "aliases", ())):
        _declared.pop(name, None)


def find_task(path: str) -> DjangoTask:
    """Return the declared task that job rows call ``path``. Raise UnknownTask; never import anything.

    A task made by Django's own ``@task`` for another backend counts as declared once its module is imported.
    """
    if path in _declared:
        return _declared[path]
    module, _, attribute = path.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    if isinstance(found, DjangoTask):
        return found
    suggestion = conf.closest(path, _declared)
    raise UnknownTask(
        f"{path!r} is not a declared task."
        + (f" Did you mean {suggestion!r}?" if suggestion else "")
        + " Declare it with @task in a module that DJANGO_JOBS['TASK_MODULES'] names"
        f" ({', '.join(conf.read('TASK_MODULES'))}) of an installed app."
    )


def path_of(task: DjangoTask) -> str:
    """Return the name by which job rows know ``task``, ours or Django's own."""
    return task.path if isinstance(task, Task) else task.module_path


def declared_tasks() -> dict[str, DjangoTask]:
    """Return the declared tasks by path, without aliases, sorted."""
    return {path: task for path, task in sorted(_declared.items()) if path == path_of(task)}


def declared_names() -> dict[str, DjangoTask]:
    """Return the declared tasks by every name that job rows may use, aliases too."""
    return dict(_declared)


def discover_tasks() -> None:
    """Import the task modules of every installed app. Called once the apps are ready."""
    for app in apps.get_app_configs():
        for name in conf.read_or_default("TASK_MODULES"):
            if module_has_submodule(app.module, name):
                import_module(f"{app.name}.{name}")


_CHANGEABLE = (
    "priority", "queue_name", "run_after", "backend", "max_attempts", "meta",
    "unique_key", "concurrency_key", "concurrency_limit", "timeout", "delay",
)  # fmt: skip


def _restore(path: str, changes: dict[str, Any]) -> DjangoTask:
    """Return the declared task with the options that a pickled copy of it had."""
    return dataclasses.replace(find_task(path), **changes)
