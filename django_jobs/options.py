"""The options of a task: what ``@task`` takes, and what each may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar

from .compat import InvalidTask
from .conf import LONGEST_DURATION
from .retries import Backoff, to_seconds

if TYPE_CHECKING:
    from .task import Task

LONGEST_PATH = 255
LONGEST_QUEUE_NAME = 100
LONGEST_KEY = 255
MOST_ATTEMPTS = 32767
MOST_SLOTS = 2_147_483_647

Argument = TypeVar("Argument")
# What is the same for every job of a task, or made of the arguments of each.
FromArguments: TypeAlias = Argument | Callable[..., Argument]
# Task and arguments, some of the arguments by name, or a key made of them.
Unique = bool | str | Iterable[str] | Callable[..., str | None]
OnConflict = Literal["return", "raise", "replace"]
Exceptions = type[BaseException] | Iterable[type[BaseException]]


class TaskOptions(TypedDict, total=False):
    """What ``@task`` takes; see ``Task`` for what each means. None is as good as left out."""

    name: str | None
    aliases: Iterable[str]
    priority: int
    queue_name: str
    backend: str
    takes_context: bool
    max_attempts: int | None
    backoff: Backoff | None
    retry_on: Exceptions | None
    ignore_on: Exceptions
    meta: Mapping[str, Any] | None
    atomic: bool
    timeout: float | timedelta | None
    unique: Unique
    unique_for: float | timedelta | None
    on_conflict: OnConflict
    concurrency_key: FromArguments[str] | None
    concurrency_limit: FromArguments[int]
    cron: str | Mapping[str, Any] | None


def check_options(task: Task) -> None:
    """Bring the options into their stored form, or raise InvalidTask naming the one that cannot work."""

    def refuse(problem: str) -> InvalidTask:
        return InvalidTask(f"Task {task.module_path}: {problem}")

    attempts = task.max_attempts
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= MOST_ATTEMPTS:
        raise refuse(f"max_attempts must be a whole number between 1 and {MOST_ATTEMPTS}, not {attempts!r}.")
    if not callable(task.backoff):
        raise refuse(f"backoff must be callable, not {task.backoff!r}. For a constant use retries.fixed(seconds).")
    _check_atomic(task, refuse)
    _check_timeout(task, refuse)
    _check_slot(task, refuse)
    for option in ("retry_on", "ignore_on"):
        object.__setattr__(task, option, _classes(getattr(task, option), option, refuse))
    given: Any = task.aliases
    aliases = (given,) if isinstance(given, str) else _as_tuple(task.aliases)
    object.__setattr__(task, "aliases", aliases)
    for name in (task.path, *aliases):
        if not is_name(name, LONGEST_PATH):
            raise refuse(f"a name is a text of 1 to {LONGEST_PATH} characters, not {name!r}.")
    if task.delay is not None:
        try:
            to_seconds(max(task.delay, timedelta()))
        except ValueError as error:
            raise refuse(f"run_after: {error}") from error
    if task.unique_key is not None and not is_name(task.unique_key, LONGEST_KEY):
        raise refuse(f"unique_key is a text of 1 to {LONGEST_KEY} characters, not {task.unique_key!r}.")
    if not isinstance(task.meta, Mapping):
        raise refuse(f"meta is a dict, not {task.meta!r}.")


def _check_slot(task: Task, refuse: Callable[[str], InvalidTask]) -> None:
    key, limit = task.concurrency_key, task.concurrency_limit
    if not callable(key) and key not in (None, "") and not is_key(key):
        raise refuse(f"concurrency_key is a text of up to {LONGEST_PATH} characters or a callable, not {key!r}.")
    if not callable(limit) and not is_limit(limit):
        raise refuse(f"concurrency_limit is a whole number from 1 to {MOST_SLOTS} or a callable, not {limit!r}.")


def _check_atomic(task: Task, refuse: Callable[[str], InvalidTask]) -> None:
    if not isinstance(task.atomic, bool):
        raise refuse(f"atomic is True or False, not {task.atomic!r}.")
    if task.atomic and iscoroutinefunction(task.func):
        raise refuse(
            "atomic=True needs a plain function: an async def function cannot keep a transaction open over its awaits. "
            "Make it def, or write what belongs together in sync_to_async() with transaction.atomic()."
        )


def _check_timeout(task: Task, refuse: Callable[[str], InvalidTask]) -> None:
    given: Any = task.timeout
    if given is None:
        return
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    # Not a number is not between the two either.
    if not is_number or not 0 < seconds <= LONGEST_DURATION:
        raise refuse(
            f"timeout is a number of seconds, more than 0 and at most {LONGEST_DURATION:.0f} (ten years), or a "
            f"timedelta, not {given!r}. Leave it out for none."
        )
    object.__setattr__(task, "timeout", float(seconds))


def is_key(value: object) -> bool:
    """Say whether ``value`` is a text that can be a concurrency key."""
    return is_name(value, LONGEST_PATH)


def is_limit(value: object) -> bool:
    """Say whether ``value`` is a number of jobs that may be ready or running at once."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_SLOTS


def is_name(value: object, longest: int) -> bool:
    """Say whether ``value`` is a text that every database can store as the name of something."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and len(value) <= longest
        and "\x00" not in value
        and (value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value))
    )


def shown(value: Any) -> str:
    """Return a value for a message, cut where it is too long to read."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a number with too many digits, or whatever somebody has given
        return f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"
    return text if len(text) <= 100 else f"{text[:100]}…"


def _classes(value: Any, option: str, refuse: Callable[[str], InvalidTask]) -> tuple[type[BaseException], ...]:
    classes = (value,) if isinstance(value, type) else _as_tuple(value)
    for entry in classes:
        if not (isinstance(entry, type) and issubclass(entry, BaseException)):
            raise refuse(f"{option} takes exception classes, not {entry!r}.")
    return classes


def _as_tuple(value: Any) -> tuple[Any, ...]:
    # What is no iterable is the one entry, to be refused by its name.
    return tuple(value) if isinstance(value, Iterable) else (value,)
