"""Due times of crontab expressions, across every change of the clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import cron
from pipeline.core.cron import CronSchedule, first_instant

#: Half-hour changes (Lord Howe), changes at one minute past midnight (St John's until 2011) and at midnight
#: (Tehran until 2022), a day that is skipped (Apia 2011), a change in the month of fasting (Casablanca).
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Asia/Tehran",
    "Pacific/Apia",
    "Africa/Casablanca",
    "UTC",
)
EXPRESSIONS = (
    "30 2 * * *",
    "45 1 * * *",
    "15 2 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "30 23 * * *",
    "0 3 * * 0-4",
    "59 1 * * fri-mon",
    "0 2 * * sun",
    "0 2 1 * sun",
    "30 1-2 * * *",
    "*/20 2 * * *",
    "*/30 * * * *",
    "7 * * * *",
    "* * * * *",
)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def offset(moment: datetime, zone: str) -> timedelta:
    found = moment.astimezone(ZoneInfo(zone)).utcoffset()
    assert found is not None
    return found


@cache
def transitions(zone: str) -> tuple[datetime, ...]:
    """Return the first instants after each change of the clock of a zone, 2005 to 2037, in UTC."""
    found, day = [], datetime(2005, 1, 1, tzinfo=UTC)
    while day.year < 2038:
        following = day + timedelta(days=1)
        if offset(day, zone) != offset(following, zone):
            early, late = day, following
            while late - early > timedelta(seconds=1):
                middle = early + timedelta(seconds=(late - early) // timedelta(seconds=2))
                early, late = (middle, late) if offset(middle, zone) == offset(day, zone) else (early, middle)
            found.append(late)
        day = following
    return tuple(found)


def walls(expression: str, start: datetime, end: datetime) -> list[datetime]:
    """Return the wall-clock times of an expression between two naive times, by looking at every minute."""
    minute, hour, day, month, weekday = (
        _values(text, low, high)
        for text, low, high in zip(expression.split(), (0, 0, 1, 1, 0), (59, 23, 31, 12, 6), strict=True)
    )
    either = expression.split()[2] != "*" and expression.split()[4] != "*"
    found, wall = [], start
    while wall <= end:
        days = (wall.day in day, wall.isoweekday() % 7 in weekday)
        day_matches = any(days) if either else all(days)
        if wall.minute in minute and wall.hour in hour and wall.month in month and day_matches:
            found.append(wall)
        wall += timedelta(minutes=1)
    return found


def _values(text: str, low: int, high: int) -> set[int]:
    names = {"sun": 0, "fri": 5, "mon": 1}
    text, _, step = text.partition("/")
    first, _, last = text.partition("-")
    if text == "*":
        return set(range(low, high + 1, int(step or 1)))
    start = names.get(first) if first in names else int(first)
    end = start if not last else names.get(last) if last in names else int(last)
    assert start is not None
    assert end is not None
    return set(range(start, end + 1)) if start <= end else {*range(start, high + 1), *range(low, end + 1)}


def instant(wall: datetime, zone: str) -> datetime:
    """Return the first whole minute at which the clock of a zone shows ``wall`` or a later time."""
    moment = wall.replace(tzinfo=UTC) - timedelta(hours=14)
    while moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) < wall:
        moment += timedelta(minutes=1)
    return moment


@pytest.mark.parametrize(
    ("expression", "zone", "now", "due"),
    [
        ("0 3 * * *", "UTC", "2026-03-01T03:00:00", "2026-03-01T03:00:00"),
        ("0 3 * * *", "UTC", "2026-03-01T02:59:59", "2026-02-28T03:00:00"),
        ("0 3 * * *", "Europe/Berlin", "2026-07-01T12:00:00", "2026-07-01T01:00:00"),
        # the hour that spring skips: the first instant after it
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T12:00:00", "2026-03-29T01:00:00"),
        # the hour that autumn repeats: its first occurrence
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T12:00:00", "2026-10-25T00:30:00"),
        ("0 0 29 2 *", "UTC", "2026-03-01T00:00:00", "2024-02-29T00:00:00"),
        ("*/5 * * * *", "UTC", "2026-03-01T00:04:59.999", "2026-03-01T00:00:00"),
        ("0 2 * * sun", "UTC", "2026-03-02T00:00:00", "2026-03-01T02:00:00"),
        ("0 2 * * 0", "UTC", "2026-03-02T00:00:00", "2026-03-01T02:00:00"),
        ("0 2 * * 7", "UTC", "2026-03-02T00:00:00", "2026-03-01T02:00:00"),
    ],
)
def test_last_due_time(expression: str, zone: str, now: str, due: str):
    found = CronSchedule(expression, zone).last_due(at(now, zone))
    assert found is not None
    assert found.astimezone(UTC) == at(due)


@pytest.mark.parametrize("second", [0, 59])
def test_second_pass_of_the_repeated_hour(second: int):
    """The reproduction of the endless loop: the time is asked for in the second 02:30."""
    schedule = CronSchedule("30 2 * * *", "Europe/Berlin")
    now = at("2026-10-25T02:30:00", "Europe/Berlin").replace(fold=1, second=second)
    assert schedule.last_due(now) == at("2026-10-25T00:30:00")
    assert schedule.next_due(now) == at("2026-10-26T01:30:00")
    # at 02:10 for the second time, 02:30 has been due for the first time
    assert schedule.last_due(now.replace(minute=10)) == at("2026-10-25T00:30:00")


@pytest.mark.parametrize(
    ("weekdays", "days"),
    [
        ("0-4", {0, 1, 2, 3, 4}),
        ("sun-thu", {0, 1, 2, 3, 4}),
        ("0-3", {0, 1, 2, 3}),
        ("0-6", set(range(7))),
        ("0-7", set(range(7))),
        ("1-7", set(range(7))),
        ("fri-mon", {5, 6, 0, 1}),
        ("5-1", {5, 6, 0, 1}),
        ("SAT-SUN", {6, 0}),
        ("6-0", {6, 0}),
        ("fri-7", {5, 6, 0}),
        ("7-2", {0, 1, 2}),
        ("mon-fri/2", {1, 3, 5}),
        ("fri-tue/2", {5, 0, 2}),
        ("0-6/2", {0, 2, 4, 6}),
        ("sun,tue-wed,5", {0, 2, 3, 5}),
        ("7,1", {0, 1}),
        ("*/2", {0, 2, 4, 6}),
        ("*", set(range(7))),
    ],
)
def test_weekdays(weekdays: str, days: set[int]):
    schedule, found, due = CronSchedule(f"0 3 * * {weekdays}", "UTC"), set(), at("2026-03-01T00:00:00")
    for _ in range(len(days) * 2):
        due = schedule.next_due(due)
        found.add(due.isoweekday() % 7)
    assert found == days
    assert due - at("2026-03-01T00:00:00") < timedelta(days=15)


def test_day_of_month_or_weekday():
    schedule, due, found = CronSchedule("0 3 13 * fri", "UTC"), at("2026-03-01T00:00:00"), []
    for _ in range(6):
        due = schedule.next_due(due)
        found.append(due.day)
    assert found == [6, 13, 20, 27, 3, 10]  # Fridays of March (13 is one), April
    assert CronSchedule("0 3 1 * fri", "UTC").next_due(at("2026-03-30T12:00:00")) == at("2026-04-01T03:00:00")


@pytest.mark.parametrize(
    "expression",
    [
        "every sunday",
        "0 2 * *",
        "0 0 2 * * *",  # seconds
        "61 * * * *",
        "0 24 * * *",
        "0 2 * * 8",
        "0 2 * * 5-8",
        "0 2 * * mon-8",
        "0 2 * * mon-someday",
        "0 2 * * mon-fri/0",
        "0 2 0 * *",
        "0 2 * 13 *",
        "0 22-6 * * *",
        "0 0 31 2 *",  # no such day
        "0 0 31 4,6 *",
    ],
)
def test_invalid_expressions_are_refused(expression: str):
    with pytest.raises(ValueError, match=r"is not a cron expression .* write minute hour"):
        CronSchedule(expression, "UTC")


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_wall_time_is_due_once_across_transitions(expression: str, zone: str):
    """Each change of the clock of the zone: due times are those of a minute by minute search."""
    schedule = CronSchedule(expression, zone)
    for change in transitions(zone) or (at("2026-03-29T01:00:00"),):
        start, end = change - timedelta(hours=2), change + timedelta(hours=2, minutes=30)
        local = [(m.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for m in (start, end)]
        expected = sorted({first_instant(wall, ZoneInfo(zone)) for wall in walls(expression, *local)})
        expected = [due for due in expected if start < due <= end]
        found, due = [], schedule.next_due(start)
        while due is not None and due <= end:
            assert not found or due > found[-1]
            found.append(due)
            due = schedule.next_due(due)
        assert found == expected
        for earlier, later in list(pairwise(found))[::7]:
            assert schedule.last_due(earlier) == earlier
            assert schedule.last_due(later - timedelta(microseconds=1)) == earlier


@pytest.mark.parametrize("zone", ZONES)
def test_first_instant_at_every_transition(zone: str):
    for change in transitions(zone):
        before, after = offset(change - timedelta(seconds=1), zone), offset(change, zone)
        wall = (change + min(before, after)).replace(tzinfo=None)
        inside = wall + abs(after - before) // 2
        for asked in (wall - timedelta(minutes=1), wall, inside, wall + abs(after - before)):
            assert first_instant(asked, ZoneInfo(zone)) == instant(asked, zone)


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    """Yield the number of wall times that a search looks at, as a list of one."""
    steps, original = [0], cron.first_instant

    def counted(wall: datetime, in_zone: ZoneInfo) -> datetime:
        steps[0] += 1
        return original(wall, in_zone)

    cron.first_instant = counted
    try:
        yield steps
    finally:
        cron.first_instant = original


@settings(max_examples=300, deadline=None)
@given(data=st.data(), zone=st.sampled_from(ZONES), expression=st.sampled_from(EXPRESSIONS))
def test_due_times_increase_in_bounded_steps(data: st.DataObject, zone: str, expression: str):
    """Any moment near a change: ``next_due`` is later, ``last_due`` is its inverse, neither searches long."""
    near = data.draw(st.sampled_from(transitions(zone) or (at("2026-10-25T01:00:00"),)))
    now = near + data.draw(st.timedeltas(timedelta(hours=-27), timedelta(hours=27)))
    # callers also pass local times, whose arithmetic ignores the fold
    now = data.draw(st.sampled_from((now, now.astimezone(ZoneInfo(zone)))))
    schedule = CronSchedule(expression, zone)
    with counted_steps() as steps:
        following, previous = schedule.next_due(now), schedule.last_due(now)
    assert following is not None
    assert previous is not None
    assert previous <= now.astimezone(UTC) < following
    assert schedule.last_due(following) == following
    assert schedule.next_due(previous) == following
    longest = (
        26 * 60 if zone == "Pacific/Apia" else 130
    )  # a minute each of the hour that is repeated or skipped
    assert steps[0] <= longest


def test_rare_due_times_are_found_in_few_steps():
    with counted_steps() as steps:
        assert CronSchedule("0 0 29 2 mon#5", "UTC").next_due(at("2026-03-01T00:00:00")) is not None
        late = CronSchedule("0 0 29 2 *", "UTC").last_due(at("2103-12-01T00:00:00"))
    assert late == at("2096-02-29T00:00:00")
    assert steps[0] < 10
