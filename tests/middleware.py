"""What settings name in tests: factories of middleware and duties that work, and some that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def plain(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def run(job: Any) -> Any:
        return call(job)

    return run


class AsClass:
    """Middleware as a class, as Django allows."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self.call = call

    def __call__(self, job: Any) -> Any:
        return self.call(job)


def takes_nothing() -> None:
    """No middleware; a duty."""


NO_CALLABLE = "text"
