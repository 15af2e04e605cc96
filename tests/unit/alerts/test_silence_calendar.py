"""Planned silences: cron and iCalendar on the wall clock, across the days on which it jumps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.alerts.routing.silence_calendar import (
    SilenceCalendar,
    SilenceWindow,
    cron_window,
    cron_windows,
)
from pipeline.alerts.routing.silencing import PlannedSilences
from pipeline.config.alerts import AlertsConfig
from pipeline.core.cron import check_cron
from pipeline.core.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")
THREE_HOURS = timedelta(hours=3)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "start"),
    [
        ("2026-03-21T23:30", None),  # Saturday night, 00:30 in Berlin
        ("2026-03-22T01:00", "2026-03-22T01:00"),  # Sunday 02:00 CET: begins
        ("2026-03-22T03:59:59", "2026-03-22T01:00"),
        ("2026-03-22T04:00", None),  # three hours later: over
        ("2026-03-29T00:59", None),  # the Sunday on which 02:00 does not exist
        ("2026-03-29T01:00", "2026-03-29T01:00"),  # the clock jumps to 03:00: the silence begins there
        ("2026-03-29T03:59", "2026-03-29T01:00"),
        ("2026-03-29T04:00", None),
        ("2026-10-25T00:00", "2026-10-25T00:00"),  # the Sunday on which 02:00 comes twice: the first
        ("2026-10-25T02:59", "2026-10-25T00:00"),
        ("2026-10-25T03:00", None),  # not a second three hours after the second 02:00
    ],
)
def test_weekly_silence_across_dst(now: str, start: str | None):
    window = cron_window("0 2 * * sun", THREE_HOURS, BERLIN, utc(now))
    assert (window.start if window else None) == (utc(start) if start else None)
    if window:
        assert window.end - window.start == THREE_HOURS


def test_silence_that_begins_inside_the_hour_that_spring_skips():
    inside = cron_window("30 2 * * sun", THREE_HOURS, BERLIN, utc("2026-03-29T01:00"))
    assert inside is not None
    assert inside.start == utc("2026-03-29T01:00")


@pytest.mark.parametrize("weekdays", ["0-4", "sun-thu", "7-4", "sat-thu"])
def test_ranges_of_weekdays(weekdays: str):
    for day, expected in ((22, True), (26, True), (27, False)):  # Sunday, Thursday, Friday
        now = utc(f"2026-03-{day}T12:30")
        found = cron_window(f"0 12 * * {weekdays}", timedelta(hours=1), ZoneInfo("UTC"), now)
        assert (found is not None) == expected


def test_numbers_of_weekdays_are_those_of_crontab():
    sunday = utc("2026-03-22T12:30")
    for expression in ("0 12 * * 0", "0 12 * * 7", "0 12 * * sun"):
        assert cron_window(expression, timedelta(hours=1), ZoneInfo("UTC"), sunday) is not None
    assert cron_window("0 12 * * 1-5", timedelta(hours=1), ZoneInfo("UTC"), sunday) is None
    assert (
        cron_window("0 12 * * 1-5", timedelta(hours=1), ZoneInfo("UTC"), sunday + timedelta(days=1))
        is not None
    )


def test_overlapping_windows_count_as_the_one_that_ends_last():
    window = cron_window("*/10 * * * *", timedelta(hours=1), ZoneInfo("UTC"), utc("2026-01-01T12:35"))
    assert window is not None
    assert window.end == utc("2026-01-01T13:30")


@given(
    minutes=st.integers(0, 366 * 24 * 60),
    hours=st.integers(1, 30),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "UTC"]),
)
def test_a_daily_silence_holds_exactly_its_length_after_each_beginning(minutes: int, hours: int, zone: str):
    now = utc("2026-01-01T00:00") + timedelta(minutes=minutes)
    length = timedelta(hours=hours)
    window = cron_window("30 2 * * *", length, ZoneInfo(zone), now)
    if window is None:
        assert hours < 25  # days are up to 25 hours long: a longer silence never ends
    else:
        assert window.start <= now < window.end == window.start + length


@pytest.mark.parametrize("expression", ["", "every sunday", "0 2 * *", "61 * * * *", "0 2 * * someday"])
def test_a_bad_expression_is_refused_with_what_to_write(expression: str):
    with pytest.raises(ValueError, match=r"0 2 \* \* sun"):
        check_cron(expression)


ICAL = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:test
BEGIN:VEVENT
UID:holiday
DTSTART;VALUE=DATE:20261225
DTEND;VALUE=DATE:20261227
SUMMARY:Christmas
END:VEVENT
BEGIN:VEVENT
UID:weekly
DTSTART;TZID=Europe/Berlin:20260301T020000
DTEND;TZID=Europe/Berlin:20260301T050000
RRULE:FREQ=WEEKLY;UNTIL=20260425T235959Z
EXDATE;TZID=Europe/Berlin:20260315T020000
END:VEVENT
BEGIN:VEVENT
UID:weekly
RECURRENCE-ID;TZID=Europe/Berlin:20260322T020000
DTSTART;TZID=Europe/Berlin:20260323T020000
DTEND;TZID=Europe/Berlin:20260323T050000
END:VEVENT
BEGIN:VEVENT
UID:utc
DTSTART:20260601T120000Z
DURATION:PT90M
END:VEVENT
BEGIN:VEVENT
UID:cancelled
STATUS:CANCELLED
DTSTART:20260701T120000Z
DURATION:PT90M
END:VEVENT
END:VCALENDAR
"""


@pytest.fixture
def calendar(tmp_path: Path) -> SilenceCalendar:
    path = tmp_path / "plant.ics"
    path.write_text(ICAL.replace("\n", "\r\n"))
    return SilenceCalendar(path, BERLIN)


@pytest.mark.parametrize(
    ("now", "inside"),
    [
        ("2026-12-24T22:59", False),
        ("2026-12-24T23:00", True),  # midnight in Berlin
        ("2026-12-26T22:59", True),
        ("2026-12-26T23:00", False),
        ("2026-03-08T01:30", True),  # an instance of the weekly event
        ("2026-03-15T01:30", False),  # taken out
        ("2026-03-22T01:30", False),  # moved ...
        ("2026-03-23T01:30", True),  # ... to Monday
        ("2026-03-29T00:59", False),
        ("2026-03-29T01:30", True),  # spring: 02:00 does not exist; from 03:00 ...
        ("2026-03-29T02:59", True),
        ("2026-03-29T03:00", False),  # ... to 05:00 on the wall, as the event says
        ("2026-04-19T01:30", True),  # the last one before UNTIL
        ("2026-04-26T01:30", False),
        ("2026-06-01T13:29", True),
        ("2026-06-01T13:30", False),
        ("2026-07-01T12:30", False),  # cancelled
    ],
)
def test_calendar(calendar: SilenceCalendar, now: str, inside: bool):
    assert (calendar.window(utc(now)) is not None) == inside


def test_a_changed_calendar_is_read_again(tmp_path: Path):
    import os

    path = tmp_path / "c.ics"
    path.write_text(ICAL)
    calendar = SilenceCalendar(path, BERLIN)
    assert calendar.window(utc("2026-06-01T12:30"))
    path.write_text("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nEND:VCALENDAR\r\n")
    os.utime(path, (1, 1))
    assert calendar.window(utc("2026-06-01T12:30")) is None


def test_a_calendar_that_cannot_be_read_says_so(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot read the calendar"):
        SilenceCalendar(tmp_path / "missing.ics", BERLIN).window(utc("2026-01-01T00:00"))
    (tmp_path / "bad.ics").write_text("no calendar")
    with pytest.raises(ConfigError, match="not an iCalendar file"):
        SilenceCalendar(tmp_path / "bad.ics", BERLIN).window(utc("2026-01-01T00:00"))


UNUSABLE = {
    "each second": ("DTSTART:19700101T000000Z", "DURATION:PT1S", "RRULE:FREQ=SECONDLY"),
    "each minute": ("DTSTART:20200101T000000Z", "DURATION:PT1M", "RRULE:FREQ=MINUTELY;COUNT=999999999"),
    "no date matches": (
        "DTSTART:20200101T000000Z",
        "DURATION:PT1H",
        "RRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
    ),
    "no step": ("DTSTART:20260101T000000Z", "DURATION:PT1H", "RRULE:FREQ=DAILY;INTERVAL=0"),
    "long ago": ("DTSTART:00010101T000000", "DURATION:P1D", "RRULE:FREQ=DAILY"),
    "beyond the calendar": ("DTSTART:99991231T235959Z", "DURATION:P9999D"),
    "no start": ("DURATION:PT1H",),
    "an unknown frequency": ("DTSTART:20200101T000000Z", "RRULE:FREQ=SOMETIMES"),
    "an endless length": ("DTSTART:20260101T000000Z", "DURATION:P99999999999D"),
    "an exception that is no date": (
        "DTSTART:20260101T000000Z",
        "DURATION:PT1H",
        "RRULE:FREQ=DAILY",
        "EXDATE:garbage",
    ),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", UNUSABLE)
def test_an_event_that_cannot_be_evaluated_costs_no_other(tmp_path: Path, name: str):
    """Most of these kept the thread that sends alerts computing for ever."""
    path = tmp_path / "c.ics"
    event = "\r\n".join(("BEGIN:VEVENT", "UID:bad", *UNUSABLE[name], "END:VEVENT", ""))
    yearly = ("DTSTART:20200101T120000Z", "DURATION:PT1H", "RRULE:FREQ=YEARLY")
    good = "\r\n".join(("BEGIN:VEVENT", "UID:good", *yearly, "END:VEVENT", ""))
    head = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\n"
    path.write_text(f"{head}{event}{good}END:VCALENDAR\r\n")
    calendar = SilenceCalendar(path, BERLIN)
    assert calendar.window(utc("2026-01-01T12:30")) is not None
    assert calendar.window(utc("2026-01-01T23:30")) is None


def test_a_calendar_that_goes_away_silences_nothing(tmp_path: Path):
    """The alerts of its stream waited until the file was back."""
    path = tmp_path / "c.ics"
    path.write_text(ICAL)
    config = AlertsConfig.model_validate(
        {
            "silences": {
                "works": {"match": {"series": "*"}, "calendar": str(path), "timezone": "Europe/Berlin"}
            }
        }
    )
    planned, now = PlannedSilences(config), round(utc("2026-06-01T12:30").timestamp()) * 10**9
    assert [one.name for one in planned.in_force(now)] == ["works"]
    path.unlink()
    assert planned.in_force(now + 10**10) == []
    path.write_text(ICAL)
    assert [one.name for one in planned.in_force(now + 2 * 10**10)] == ["works"]


def span(start: str, end: str) -> SilenceWindow:
    return SilenceWindow(utc(start), utc(end))


def test_windows_of_a_span_are_those_of_each_instant_across_dst():
    found = list(
        cron_windows("0 2 * * sun", THREE_HOURS, BERLIN, span("2026-03-22T03:00", "2026-03-29T02:00"))
    )
    assert [one.start for one in found] == [utc("2026-03-22T01:00"), utc("2026-03-29T01:00")]
    for one in found:
        assert cron_window("0 2 * * sun", THREE_HOURS, BERLIN, one.start) == one
    assert not list(
        cron_windows("0 2 * * sun", THREE_HOURS, BERLIN, span("2026-03-22T04:00", "2026-03-28T00:00"))
    )


def test_events_of_a_calendar_that_overlap_a_span(tmp_path):
    path = tmp_path / "silences.ics"
    start = "DTSTART;TZID=Europe/Berlin:20260301T220000"
    event = f"BEGIN:VEVENT\nUID:1\n{start}\nDURATION:PT4H\nRRULE:FREQ=WEEKLY\nEND:VEVENT"
    path.write_text(f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\n{event}\nEND:VCALENDAR\n".replace("\n", "\r\n"))
    calendar = SilenceCalendar(path, BERLIN)
    found = calendar.windows(span("2026-03-22T22:00", "2026-04-06T00:00"))
    assert [one.start for one in found] == [
        utc(text) for text in ("2026-03-22T21:00", "2026-03-29T20:00", "2026-04-05T20:00")
    ]
    assert calendar.window(found[1].start) == found[1]
