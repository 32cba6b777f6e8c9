"""A process whose clock is wrong: Python imports this at its start, before all else, where its directory is on the path.

The clock of the day is JOBS_TEST_CLOCK_OFFSET seconds ahead, or behind. The monotonic clock is right, as it is on a machine
whose clock was set wrong; and so is the clock of the database, also of SQLite, which asks the system itself.
"""

from __future__ import annotations

import datetime as module
import os
import time
from typing import Any

OFFSET = float(os.environ.get("JOBS_TEST_CLOCK_OFFSET", "0"))

_real, _real_time, _real_time_ns = module.datetime, time.time, time.time_ns


class _IsReal(type):
    """What the C code of drivers makes is of the real class."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _real)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, _real)


class datetime(_real, metaclass=_IsReal):  # noqa: N801
    # C code that is compiled against the real class looks at the size of what it finds in its place.
    __slots__ = ()

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _real.now(tz) + module.timedelta(seconds=OFFSET)

    @classmethod
    def utcnow(cls) -> Any:
        return _real.now(module.UTC).replace(tzinfo=None) + module.timedelta(seconds=OFFSET)

    @classmethod
    def today(cls) -> Any:
        return cls.now()


if OFFSET:
    module.datetime = datetime  # type: ignore[misc]
    time.time = lambda: _real_time() + OFFSET
    time.time_ns = lambda: _real_time_ns() + int(OFFSET * 1_000_000_000)
