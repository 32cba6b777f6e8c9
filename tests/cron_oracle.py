"""What a cron expression means on any day, found the slow way: every minute is looked at, and nothing is shared with the product."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


class Expression:
    """Five fields of numbers, lists, ranges and steps, as sets."""

    def __init__(self, text: str) -> None:
        fields = text.split()
        pairs = zip(fields, _RANGES, strict=True)
        self.minutes, self.hours, self.days, self.months, weekdays = (_parsed(*pair) for pair in pairs)
        # Sunday is 0 and 7.
        self.weekdays = {day % 7 for day in weekdays}
        self._takes_either = fields[2] != "*" and fields[4] != "*"
        self.is_fixed = self.hours != set(range(24))

    def matches(self, wall: datetime) -> bool:
        day, weekday = wall.day in self.days, wall.isoweekday() % 7 in self.weekdays
        is_day = (day or weekday) if self._takes_either else (day and weekday)
        return wall.minute in self.minutes and wall.hour in self.hours and wall.month in self.months and is_day


def _parsed(text: str, most: tuple[int, int]) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        begin, _, step = part.partition("/")
        first, _, last = begin.partition("-")
        low, high = most if begin == "*" else (int(first), int(last or first))
        found |= set(range(low, high + 1, int(step or 1)))
    return found


class Days:
    """The minutes from one moment to another by a zone's clock, each with the times that it leaves out just before."""

    def __init__(self, begin: datetime, end: datetime, zone: ZoneInfo) -> None:
        self._minutes = list(_minutes(begin, end, zone))

    def moments(self, expression: Expression) -> list[datetime]:
        return [moment for moment, wall, left_out in self._minutes if _is_run(expression, wall, left_out)]


def _is_run(expression: Expression, wall: datetime, left_out: list[datetime]) -> bool:
    if not expression.is_fixed:
        return expression.matches(wall)
    return (expression.matches(wall) and not wall.fold) or any(map(expression.matches, left_out))


def _minutes(begin: datetime, end: datetime, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime, list[datetime]]]:
    before = begin.astimezone(zone).replace(tzinfo=None, fold=0)
    moment = begin + MINUTE
    while moment <= end:
        local = moment.astimezone(zone)
        wall = local.replace(tzinfo=None, fold=0)
        gap = (wall - before) // MINUTE - 1
        yield moment.astimezone(UTC), local, [before + MINUTE * (number + 1) for number in range(gap)]
        before, moment = wall, moment + MINUTE
