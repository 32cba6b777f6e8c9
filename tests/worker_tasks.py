"""Tasks for the tests of the worker: each calls a function that the test has handed over with ``doing()``.

So a test says in its own lines what its job does, and the job itself is a real one, with a row of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from django_jobs import task
from django_jobs.context import JobContext
from django_jobs.retries import fixed

_bodies: dict[str, Callable[..., Any]] = {}
_numbers = itertools.count()


def doing(body: Callable[..., Any]) -> str:
    """Keep a function for a task to call; return the name by which its job asks for it."""
    name = f"{getattr(body, '__name__', 'body')}-{next(_numbers)}"
    _bodies[name] = body
    return name


def raising(error: BaseException | type[BaseException]) -> str:
    """Have a task raise this."""

    def body() -> None:
        raise error

    return doing(body)


def returning(value: Any) -> str:
    """Have a task return this."""
    return doing(lambda: value)


@task
def do(body: str, *args: Any) -> Any:
    return _bodies[body](*args)


@task(takes_context=True)
def do_with_context(context: JobContext, body: str) -> Any:
    return _bodies[body](context)


@task
async def do_async(body: str, *args: Any) -> Any:
    return await _bodies[body](*args)


@task(takes_context=True)
async def do_async_with_context(context: JobContext, body: str) -> Any:
    return await _bodies[body](context)


@task(retry_on=OSError)
def do_and_retry_os_errors(body: str) -> Any:
    return _bodies[body]()


@task(retry_on=OSError, ignore_on=FileNotFoundError)
def do_and_ignore_missing_files(body: str) -> Any:
    return _bodies[body]()


@task(atomic=True)
def do_atomically(body: str, *args: Any) -> Any:
    return _bodies[body](*args)


@task(max_attempts=1)
def do_once(body: str) -> Any:
    return _bodies[body]()


@task(backoff=fixed(0))
def do_and_retry_at_once(body: str) -> Any:
    return _bodies[body]()


def _chosen_backoff(error: BaseException, task_result: Any) -> Any:
    return _bodies["backoff"](error, task_result)


@task(backoff=_chosen_backoff)
def do_with_chosen_backoff(body: str) -> Any:
    """Do it; the test has chosen the backoff with ``choose_backoff()``."""
    return _bodies[body]()


def choose_backoff(backoff: Callable[[BaseException, Any], Any]) -> None:
    _bodies["backoff"] = backoff
