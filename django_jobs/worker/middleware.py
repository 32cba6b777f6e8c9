"""The chain of middleware around each job, in Django's shape.

::

    def middleware(call):            # once, when the worker starts
        def run(job):                # for each attempt, in the thread that runs the job
            return call(job)
        return run

``job`` is a ``ClaimedJob`` (id, task_path, queue_name, args, kwargs, attempt, ...); what ``run`` returns is the result of
the job, and what it raises is its failure. ``DJANGO_JOBS["MIDDLEWARE"]`` names factories, outermost first. For ``async
def`` tasks ``call`` is a coroutine function; where a factory answers with a plain function then, each such job gets a
thread, and with it database connections, of its own, as requests do in Django.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.utils.module_loading import import_string

from .. import conf
from ..exceptions import InvalidOption
from ..outcomes import ClaimedJob

Call = Callable[[ClaimedJob], Any]
AsyncCall = Callable[[ClaimedJob], Awaitable[Any]]
Factory = Callable[[Any], Any]


def load_factories() -> list[Factory]:
    """Return the factories that the setting names. Raise InvalidOption for one that cannot be imported."""
    factories: list[Factory] = []
    for path in conf.read("MIDDLEWARE"):
        try:
            factory = import_string(path)
        except ImportError as error:
            raise InvalidOption(
                f"DJANGO_JOBS['MIDDLEWARE'] names {path!r}, which cannot be imported: {error}"
            ) from error
        if not callable(factory):
            raise InvalidOption(f"DJANGO_JOBS['MIDDLEWARE'] names {path!r}, which is not callable.")
        factories.append(factory)
    return factories


def build_chain(factories: list[Factory], innermost: Call) -> Call:
    """Return ``innermost`` wrapped in the middleware, for plain functions."""
    call = innermost
    for factory in reversed(factories):
        call = _built(factory, call)
        if _is_asynchronous(call):
            raise InvalidOption(f"The middleware {factory!r} must return a plain function where the call is one.")
    return call


class AsyncChain(NamedTuple):
    """``needs_thread``: some middleware is a plain function, which would hold up whoever shares its thread."""

    call: AsyncCall
    needs_thread: bool


def build_async_chain(factories: list[Factory], innermost: AsyncCall) -> AsyncChain:
    """Return ``innermost`` wrapped in the middleware, for ``async def`` functions."""
    call, needs_thread = innermost, False
    for factory in reversed(factories):
        run = _built(factory, call)
        if not _is_asynchronous(run):
            run = sync_to_async(_built(factory, async_to_sync(call)))
            needs_thread = True
        call = run
    return AsyncChain(call, needs_thread)


def _is_asynchronous(call: Any) -> bool:
    return iscoroutinefunction(call) or iscoroutinefunction(type(call).__call__)


def _built(factory: Factory, call: Any) -> Any:
    run = factory(call)
    if not callable(run):
        raise InvalidOption(f"The middleware {factory!r} must return a callable, not {run!r}.")
    return run
