"""Cron expressions: what they may be, when they come, and what happens on the days on which clocks change."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from django_jobs.crontab import NAMES, describe, moments_after, next_after, validate
from django_jobs.exceptions import InvalidOption

from .cron_oracle import Days, Expression

HOUR = timedelta(hours=1)
# Of a change: the whole day on whose clock it is.
AROUND = 15 * HOUR
ZONES = ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]
PARIS = ZoneInfo("Europe/Paris")

# With a reason, what cronsim does otherwise.
STAR = (
    "To cronsim, as to Debian, a * in the minute or the hour makes every hour of it; here the hour's own set decides."
)
RANGE = "To cronsim a range of all hours is a list of fixed ones; here what comes every hour is no fixed time."
HALF = "cronsim steps by whole hours past a change of half an hour."
EXPRESSIONS = {
    "* * * * *": {},
    "*/5 * * * *": {},
    "*/30 * * * *": {},
    "0 * * * *": {},
    "30 * * * *": {"Australia/Lord_Howe": HALF},
    "@hourly": {},
    "0 0-23 * * *": dict.fromkeys(ZONES, RANGE),
    "30 0-23/1 * * *": dict.fromkeys(ZONES, RANGE),
    "0 *,3 * * *": {},
    "0 */2 * * *": dict.fromkeys(ZONES, STAR),
    "* 2 * * *": dict.fromkeys(ZONES, STAR),
    "*/15 2 * * *": dict.fromkeys(ZONES, STAR),
    "*/20 1-3 * * *": dict.fromkeys(ZONES, STAR),
    "0 2 * * *": {},
    "15 2 * * *": {},
    "30 2 * * *": {},
    "0,30 2 * * *": {},
    "15 1 * * *": {},
    "45 1 * * *": {},
    "30 1,2,3 * * *": {},
    "0 3 * * *": {},
    "30 2 * * 0": {},
    "30 2 1-7 * 0": {},
    "0 0 * * *": {},
    "@daily": {},
    "59 23 * * *": {},
}


@cache
def changes_of(zone_name: str) -> list[datetime]:
    """Return the first instant after each change of the zone's clock in 2026 and 2027."""
    zone = ZoneInfo(zone_name)
    hours = (datetime(2026, 1, 1, tzinfo=UTC) + number * HOUR for number in range(2 * 365 * 24))
    return [later for earlier, later in pairwise(hours) if offset(earlier, zone) != offset(later, zone)]


def offset(moment: datetime, zone: ZoneInfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()


@cache
def days_around(zone_name: str, change: datetime) -> Days:
    return Days(change - AROUND, change + AROUND, ZoneInfo(zone_name))


def ours(expression: str, begin: datetime, end: datetime, zone: ZoneInfo) -> list[datetime]:
    return list(takewhile(lambda moment: moment <= end, moments_after(expression, begin, zone)))


def cronsims(expression: str, begin: datetime, end: datetime, zone: ZoneInfo) -> list[datetime]:
    moments = (moment.astimezone(UTC) for moment in CronSim(NAMES.get(expression, expression), begin.astimezone(zone)))
    return list(takewhile(lambda moment: moment <= end, moments))


# The days on which clocks change


@pytest.mark.parametrize("zone_name", ZONES)
def test_each_zone_of_the_table_changes_its_clock_twice_a_year(zone_name: str) -> None:
    assert len(changes_of(zone_name)) == 4


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("zone_name", ZONES)
def test_the_moments_around_a_change_are_those_of_the_rule(zone_name: str, expression: str) -> None:
    wanted = Expression(NAMES.get(expression, expression))

    for change in changes_of(zone_name):
        found = ours(expression, change - AROUND, change + AROUND, ZoneInfo(zone_name))

        assert found == days_around(zone_name, change).moments(wanted)


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("zone_name", ZONES)
def test_cronsim_agrees_but_for_the_differences_that_have_a_reason(zone_name: str, expression: str) -> None:
    zone = ZoneInfo(zone_name)

    differs = any(
        ours(expression, change - AROUND, change + AROUND, zone)
        != cronsims(expression, change - AROUND, change + AROUND, zone)
        for change in changes_of(zone_name)
    )

    assert differs == (zone_name in EXPRESSIONS[expression])


@pytest.mark.parametrize(
    ("expression", "gap", "fold"),
    [
        # The hour between two and three is left out in March and comes twice in October.
        ("30 2 * * *", ["03:00+0200"], ["02:30+0200"]),
        ("0,30 2 * * *", ["03:00+0200"], ["02:00+0200", "02:30+0200"]),
        ("30 1-3 * * *", ["01:30+0100", "03:00+0200", "03:30+0200"], ["01:30+0200", "02:30+0200", "03:30+0100"]),
        ("0 2,3 * * *", ["03:00+0200"], ["02:00+0200", "03:00+0100"]),
        ("0 2 * * * 30", ["03:00+0200"], ["02:00+0200"]),
        ("30 * * * *", ["01:30+0100", "03:30+0200"], ["01:30+0200", "02:30+0200", "02:30+0100", "03:30+0100"]),
    ],
)
def test_a_fixed_time_runs_once_and_an_hourly_one_as_often_as_it_comes(
    expression: str, gap: list[str], fold: list[str]
) -> None:
    def shown(day: datetime) -> list[str]:
        begin = day.replace(hour=1, tzinfo=PARIS)
        found = ours(expression, begin, begin.replace(hour=3, minute=59), PARIS)
        return [moment.astimezone(PARIS).strftime("%H:%M%z") for moment in found]

    assert shown(datetime(2026, 3, 29)) == gap
    assert shown(datetime(2026, 10, 25)) == fold


def test_a_day_that_a_zone_leaves_out_is_made_up_for_at_its_end() -> None:
    # Samoa went from the 29th of December to the 31st.
    apia = ZoneInfo("Pacific/Apia")
    begin = datetime(2011, 12, 29, 12, tzinfo=apia)

    found = list(islice(moments_after("0 9 * * *", begin, apia), 2))

    assert [moment.astimezone(apia).strftime("%d %H:%M") for moment in found] == ["31 00:00", "31 09:00"]


# Any day


def expressions(chance: random.Random) -> Iterator[str]:
    """Yield expressions of every kind, without end."""
    while True:
        minute = chance.choice(["*", "*/7", "0", "59", "13,14,50", "20-40/10", str(chance.randrange(60))])
        hour = chance.choice(["*", "0-23", "*/3", "1-3", "2", "0", "23", "0,12", str(chance.randrange(24))])
        day = chance.choice(["*", "*", "1", "28-31", "*/9", str(chance.randint(1, 28))])
        month = chance.choice(["*", "*", "2,3,4", "9-11", str(chance.randint(1, 12))])
        weekday = chance.choice(["*", "*", "0", "7", "1-5", "6,0"])
        yield f"{minute} {hour} {day} {month} {weekday}"


def times(chance: random.Random, zone_name: str) -> datetime:
    """Return a moment, most often within a day of a change of the zone's clock."""
    if chance.random() < 0.3:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=chance.randrange(700 * 1440))
    return chance.choice(changes_of(zone_name)) + timedelta(minutes=chance.randint(-1440, 1440))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("zone_name", ZONES)
def test_the_next_moment_is_the_first_minute_after_that_matches(zone_name: str, seed: int) -> None:
    chance = random.Random(f"{zone_name} {seed}")
    zone, begin = ZoneInfo(zone_name), times(chance, zone_name)
    end = begin + 40 * HOUR
    days = Days(begin, end, zone)

    for expression in islice(expressions(chance), 60):
        moments = days.moments(Expression(expression))
        found = next_after(expression, begin, zone)

        # After, a match, and none before it; or none at all in these days.
        assert (found if found is not None and found <= end else None) == (moments[0] if moments else None), (
            expression,
            begin,
        )
        assert ours(expression, begin, end, zone) == moments, (expression, begin)


def test_moments_between_two_seconds_are_followed_by_whole_ones() -> None:
    moment = datetime(2026, 5, 1, 12, 0, 0, 400_000, tzinfo=UTC)

    assert next_after("* * * * * *", moment, PARIS) == datetime(2026, 5, 1, 12, 0, 1, tzinfo=UTC)
    assert next_after("0 14 * * *", moment, PARIS) == datetime(2026, 5, 2, 12, tzinfo=UTC)


def test_the_sixth_field_has_the_seconds() -> None:
    begin = datetime(2026, 5, 1, 11, 59, 59, tzinfo=UTC)

    found = list(islice(moments_after("* * * * * */20", begin, PARIS), 4))

    assert [(moment.minute, moment.second) for moment in found] == [(0, 0), (0, 20), (0, 40), (1, 0)]


@pytest.mark.parametrize(
    ("begin", "years"), [(2026, [2028, 2032, 2036]), (2096, [2096, 2104, 2108])], ids=["soon", "past a year without"]
)
def test_a_leap_day_comes_in_leap_years_only(begin: int, years: list[int]) -> None:
    found = list(islice(moments_after("0 12 29 2 *", datetime(begin, 1, 1, tzinfo=UTC), PARIS), 3))

    assert [(moment.year, moment.month, moment.day) for moment in found] == [(year, 2, 29) for year in years]


def test_a_schedule_of_half_the_year_comes_in_its_months_by_the_clock_of_their_season() -> None:
    found = list(islice(moments_after("0 12 1 1,7 *", datetime(2026, 2, 1, tzinfo=UTC), PARIS), 3))

    assert [moment.strftime("%m-%d %H:%M") for moment in found] == ["07-01 10:00", "01-01 11:00", "07-01 10:00"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("5-5 * * * *", "5 * * * *"),
        ("0 22-22 * * *", "0 22 * * *"),
        ("0 1,22-022/3 * * *", "0 1,22 * * *"),
        ("0 0 15-15 * *", "0 0 15 * *"),
        ("0 0 * mar-3 *", "0 0 * 3 *"),
        ("0 0 * * FRI-5", "0 0 * * 5"),
        ("0 0 * * 5-5#2", "0 0 * * 5#2"),
        ("* * * * * 30-30", "* * * * * 30"),
    ],
)
def test_a_range_of_one_value_is_that_value_and_not_the_whole_field(expression: str, value: str) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)

    validate(expression)

    assert list(islice(moments_after(expression, begin, PARIS), 30)) == list(
        islice(moments_after(value, begin, PARIS), 30)
    )


def test_nothing_follows_the_end_of_time() -> None:
    assert next_after("0 0 1 1 *", datetime(9999, 6, 1, tzinfo=UTC), PARIS) is None


# What an expression may be


@pytest.mark.parametrize(
    "expression",
    [*NAMES, "@DAILY", "  0 0 * * * ", "0 0 l * *", "0 0 * * L5", "0 0 * * 5#1", "0 0 1 jan-mar sun", "0 0 29 2 *",
     "0 0 ? * *", "1,2,3-9/2 * * * *", "0 22-4 * * *", "0 0 * * sat-sun", "0 0 L * 5", "0 0 15W * ?", "0 0 ? * 5#2", "* * * * * 30", "*/60 */24 */31 */12 */7 */60"],
)  # fmt: skip
def test_what_comes_is_accepted(expression: str) -> None:
    validate(expression)

    assert next_after(expression, datetime(2026, 1, 1, tzinfo=UTC), PARIS) is not None


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("0 0 31 2 *", "never|never occur"),
        ("0 0 30 2 *", "never occur"),
        ("0 0 31 4,6,9,11 *", "never occur"),
        ("@reboot", "@daily"),
        ("@every 5m", "@daily"),
        ("H * * * *", "H or R"),
        ("R R * * *", "H or R"),
        ("r(0-10) * * * *", "H or R"),
        ("* * * *", "4 fields"),
        ("daily", "1 field"),
        ("* * * * * * *", "7 fields"),
        ("60 * * * *", "cannot work"),
        ("* 24 * * *", "cannot work"),
        ("*/0 * * * *", "cannot work"),
        ("*/90 * * * *", "longer than 60"),
        ("0 1-9,*/36 * * *", "longer than 24"),
        ("* * * * * */120", "longer than 60"),
        ("0 22-4/2 * * *", "22-4/2.*backwards"),
        ("0 0 * * sat-sun/2", "sat-sun/2.*backwards"),
        ("0 0 13 * 5#2", "goes alone"),
        ("0 0 31 * L5", "goes alone"),
        ("0 0 15W * 5", "goes alone"),
        ("* * * 13 *", "cannot work"),
        ("* * * * 8", "cannot work"),
        ("5-1-3 * * * *", "cannot work"),
        ("a b c d e", "cannot work"),
        ("٣ * * * *", "cannot work"),
        ("* * * * *\x00", "cannot work"),
        ("1," * 200 + "1 * * * *", "255 characters"),
        (None, "text"),
        (5, "text"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(expression: str, reason: str) -> None:
    with pytest.raises(InvalidOption, match=reason):
        validate(expression)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 3 * * *", "At 03:00"),
        ("@daily", "At 00:00"),
        ("*/5 * * * *", "Every 5 minutes"),
        ("0 3 * * * 30", "At 03:00:30"),
        ("0 0 1 jan *", "At 00:00, on day 1 of the month, only in January"),
        ("0 0 l * *", "At 00:00, on the last day of the month"),
        ("0 22-22 * * *", "At 22:00"),
        ("0 0 1 * 1-5", "At 00:00, on day 1 of the month, or at 00:00, Monday through Friday"),
        ("no cron", "no cron"),
        # As a row has it that was written past every check: no Python reads a number with so many digits.
        (f"0 {'9' * 5000}-1 * * *", f"0 {'9' * 5000}-1 * * *"),
        ("", ""),
    ],
)
def test_an_expression_is_put_into_words_or_stays_as_it_is(expression: str, words: str) -> None:
    assert describe(expression) == words
