"""Cron expressions: judged, put into words, and the moments they name. Pure; times come in and go out aware.

Five fields (minute, hour, day of month, month, day of week), six with seconds last, or a name such as ``@daily``.
croniter reads them and finds the times of the wall clock; what becomes of those on the days on which clocks change is
decided here. Which of the two rules an expression follows, its hour says:

- a fixed hour (``30 2 * * *``, ``0 */2 * * *``): a time that the clock leaves out is run at the first instant after the
  gap, and a time that comes twice is run the first time only;
- every hour (``*/5 * * * *``): nothing is run for a time that the clock leaves out, and one that comes twice runs twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cron_descriptor import CasingTypeEnum, FormatError, MissingFieldError, Options, WrongArgumentError, get_description
from croniter import CroniterBadDateError, CroniterError, croniter

from .exceptions import InvalidOption

LONGEST_EXPRESSION = 255
NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

# Placeholders that croniter fills in from a hash, or by chance and each time anew.
_PLACEHOLDER = re.compile(r"(?:^|[\s,])[hr](?:[\s,/(]|$)", re.IGNORECASE)
# How long a step may be, by the order of the fields. "Every 90 minutes" would come every hour.
_STEPS, _LONGEST_STEPS = re.compile(r"/(\d+)"), (60, 24, 31, 12, 7, 60)
# A range, as a whole item of a field, and what its ends may be besides numbers.
_RANGE = re.compile(r"(?<![^\s,])(\w+)-(\w+)(/\d+)?(?![^\s,#])")
_NUMBERS = {**croniter.ALPHACONV[3], **croniter.ALPHACONV[4], "l": 31}
_HOUR, _DAY_OF_MONTH, _DAY_OF_WEEK = 1, 2, 4
_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)
# No two changes of a zone's clock are as near as this, and none moves it by so much.
_STEP, _NEAR = timedelta(hours=6), timedelta(hours=30)


def validate(expression: str) -> None:
    """Raise InvalidOption, with the reason, for what is no cron expression or never comes."""
    if not isinstance(expression, str):
        raise InvalidOption(f"A cron expression is a text, not {expression!r}.")
    if len(expression) > LONGEST_EXPRESSION:
        raise InvalidOption(f"A cron expression has at most {LONGEST_EXPRESSION} characters, not {len(expression)}.")
    fields = _plain(expression).split()
    if not fields:
        raise InvalidOption("The cron expression is empty. Five fields say when, such as '*/5 * * * *'.")
    if fields[0].startswith("@"):
        known = ", ".join(NAMES)
        raise InvalidOption(f"{expression!r} is no name of a cron expression. The names are {known}.")
    if len(fields) not in (5, 6):
        raise InvalidOption(
            f"The cron expression {expression!r} has {len(fields)} field{'s' if len(fields) > 1 else ''}. It takes five "
            "(minute, hour, day of month, month, day of week), or six with the second last."
        )
    problem = _misread(fields)
    if problem:
        raise InvalidOption(f"The cron expression {expression!r} has {problem}")
    try:
        croniter.expand(" ".join(fields), strict=True)
        comes = _first_time(" ".join(fields), datetime(2024, 1, 1)) is not None  # noqa: DTZ001 - of a wall clock
    except (CroniterError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise InvalidOption(f"The cron expression {expression!r} cannot work: {error}") from error
    if not comes:
        raise InvalidOption(f"The cron expression {expression!r} never comes: no year has such a day.")


def _misread(fields: list[str]) -> str:
    """Return what in these fields would come at other times than it says, as the end of a sentence; nothing if none does."""
    if any(_PLACEHOLDER.search(field) for field in fields):
        return "H or R. Write the numbers; jitter spreads runs."
    for field, most in zip(fields, _LONGEST_STEPS, strict=False):
        if any(int(step) > most for step in _STEPS.findall(field)):
            return (
                f"a step in {field!r} that is longer than {most}, all that there is to step through: it would come each time "
                "from the beginning. Name the times, or use a larger field."
            )
        for item in _RANGE.finditer(field):
            # croniter counts on from the wrong place, or stops where the field does.
            if item[3] and _number(item[1]) > _number(item[2]):
                return f"{item[0]!r}, steps through a range that goes backwards. Name the values."
    day, weekday = fields[_DAY_OF_MONTH].lower(), fields[_DAY_OF_WEEK].lower()
    # Of these two croniter sees one only.
    is_any = {"*", "?"} & {day, weekday}
    if not is_any and ("w" in day or "#" in weekday or "l" in weekday):
        return (
            f"a day of the month ({day!r}) and a day of the week ({weekday!r}), of which one has #, L or W: that goes alone. Make "
            "two schedules, or ask for one of them in the task."
        )
    return ""


def next_after(expression: str, moment: datetime, zone: ZoneInfo) -> datetime | None:
    """Return the first moment after ``moment``, in UTC; None if there is none in the next 50 years.

    ``expression`` has passed ``validate()``.
    """
    return next(moments_after(expression, moment, zone), None)


def moments_after(expression: str, moment: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the moments after ``moment`` in their order, each once, in UTC."""
    clock = _Clock(expression, zone)
    current: datetime | None = moment.astimezone(UTC).replace(microsecond=0)
    while current is not None:
        current = clock.next_after(current)
        if current is not None:
            yield current


def describe(expression: str) -> str:
    """Return the expression in words, in English; itself where there are none for it."""
    try:
        fields = _plain(expression).split()
        expanded, _nth = croniter.expand(" ".join(fields))
        if ["*"] in (expanded[_DAY_OF_MONTH], expanded[_DAY_OF_WEEK]):
            return _in_words(fields)
        # In one sentence it would sound as if both days were needed.
        of_month, of_week = (_in_words(_without(fields, day)) for day in (_DAY_OF_WEEK, _DAY_OF_MONTH))
    except (CroniterError, FormatError, MissingFieldError, WrongArgumentError, LookupError, TypeError, ValueError):
        return expression
    return f"{of_month}, or {of_week[:1].lower()}{of_week[1:]}"


def _in_words(fields: Sequence[str]) -> str:
    options = Options()
    options.use_24hour_time_format, options.locale_code = True, "en_US"
    options.casing_type = CasingTypeEnum.Sentence
    # Seconds come first there, and an L is upper-case.
    return str(get_description(" ".join([*fields[5:], *fields[:5]]).upper(), options))


def _without(fields: Sequence[str], place: int) -> list[str]:
    return ["*" if number == place else field for number, field in enumerate(fields)]


class _Clock:
    """The times of a cron expression by the clock on a wall, of which some are left out and some come twice."""

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        self._zone = zone
        self._times = croniter(_plain(expression), datetime(2024, 1, 1), ret_type=datetime)  # noqa: DTZ001
        # Whatever comes every hour is a star there.
        self._is_fixed = "*" not in self._times.expanded[_HOUR]

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first moment after this one, if there is one.

        Walk from change to change of the zone's clock: between two, each time of the wall clock comes once.
        """
        since, offset = moment, self._offset(moment)
        wall = _naive(moment + offset)
        while True:
            time = self._time_after(wall)
            if time is None:
                return None
            found = time.replace(tzinfo=UTC) - offset
            change = self._change_between(since, min(found, since + _NEAR))
            if change is None and found > since + _NEAR:
                # A long way on, and nothing between: look again from shortly before.
                since = max(since + _NEAR, found - 2 * _DAY)
                offset = self._offset(since)
                # What is there between has been looked at.
                wall = max(wall, _naive(since + offset) - _DAY)
                continue
            if change is None:
                if not (self._is_fixed and found.astimezone(self._zone).fold):
                    return found
                since, wall = found, time
                continue
            before, offset = offset, self._offset(change)
            gap_begins, gap_ends = _naive(change + before), _naive(change + offset)
            if self._is_fixed and gap_begins <= time < gap_ends:
                return change
            # With the second before it, a time of this very instant counts.
            since, wall = change, gap_ends - _SECOND

    def _time_after(self, wall: datetime) -> datetime | None:
        """Return the first time after this one, by a clock that nobody changes."""
        self._times.set_current(wall, force=True)
        try:
            time: datetime = self._times.get_next(datetime)
        except (CroniterBadDateError, OverflowError, ValueError):
            # Not in fifty years, or past the year 9999.
            return None
        return time

    def _offset(self, moment: datetime) -> timedelta:
        offset = moment.astimezone(self._zone).utcoffset()
        assert offset is not None
        return offset

    def _change_between(self, since: datetime, until: datetime) -> datetime | None:
        """Return the first instant after ``since``, up to ``until``, with another offset than at ``since``."""
        offset = self._offset(since)
        earlier = since
        while earlier < until:
            later = min(earlier + _STEP, until)
            if self._offset(later) != offset:
                return self._bisect(earlier, later, offset)
            earlier = later
        return None

    def _bisect(self, earlier: datetime, later: datetime, offset: timedelta) -> datetime:
        while later - earlier > _SECOND:
            middle = earlier + timedelta(seconds=int((later - earlier).total_seconds()) // 2)
            if self._offset(middle) == offset:
                earlier = middle
            else:
                later = middle
        return later


def _plain(expression: str) -> str:
    """Return the fields of the expression. A range of one value is that value: croniter takes "5-5" for the whole field."""
    text = expression.strip()
    text = NAMES.get(text.lower(), text)
    return _RANGE.sub(lambda item: item[1] if _number(item[1]) == _number(item[2]) else item[0], text)


def _number(end: str) -> int:
    """Return what an end of a range stands for; -1 for what stands for nothing."""
    return int(end) if end.isdecimal() else int(_NUMBERS.get(end.lower(), -1))


def _first_time(expression: str, start: datetime) -> datetime | None:
    try:
        found: datetime = croniter(expression, start, ret_type=datetime).get_next(datetime)
    except CroniterBadDateError:
        return None
    return found


def _naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)
