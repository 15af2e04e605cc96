"""Event times: units told apart, ISO 8601 in all its spellings, local times across clock changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.timestamps import (
    ABSURD,
    END_NS,
    IMPLAUSIBLE,
    UNREADABLE,
    localise,
    parse_epochs,
    parse_texts,
    parse_times,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = 1_700_000_000


def ns_of(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


@pytest.mark.parametrize("scale", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("second", [700_000_000, NOW, 7_258_118_399])
def test_units_are_told_apart_by_size(scale, second):
    assert parse_epochs(np.array([second * scale]), "auto").tolist() == [second * 10**9]


def test_units_may_differ_within_a_column():
    mixed = np.array([NOW, NOW * 10**3 + 1, NOW * 10**6 + 2, NOW * 10**9 + 3])
    assert (parse_epochs(mixed, "auto") - NOW * 10**9).tolist() == [0, 10**6, 2000, 3]


@given(
    st.lists(
        st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=30) | st.none() | st.booleans(),
        max_size=8,
    ),
    st.sampled_from(["auto", "s", "ms", "us", "ns", "iso"]),
)
@settings(deadline=None)  # the first local time imports pandas
def test_any_number_or_text_gives_a_good_time_or_none(times, unit):
    parsed = parse_times(times, unit, "Europe/Berlin")
    assert parsed.dtype == np.int64
    assert all(t in (ABSURD, UNREADABLE, IMPLAUSIBLE) or 0 <= t < END_NS for t in parsed.tolist())
    one_by_one = [int(parse_times([t], unit, "Europe/Berlin")[0]) for t in times]
    assert parsed.tolist() == one_by_one


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30)), st.integers(-14 * 60, 14 * 60), st.booleans()
)
def test_iso_with_a_zone_is_what_python_says(moment, minutes, basic):
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = aware.isoformat()
    if basic and minutes % 60 == 0:
        text = (
            aware.strftime("%Y%m%dT%H%M%S")
            + (f".{moment.microsecond:06d}" if moment.microsecond else "")
            + aware.strftime("%z")
        )
    expected = ns_of(aware)
    assert parse_times([text], "auto", "Asia/Tokyo").tolist() == [
        expected if 0 <= expected < END_NS else ABSURD
    ]


@given(
    st.lists(st.datetimes(datetime(1971, 1, 2), datetime(2036, 12, 30)), min_size=1, max_size=5),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
)
@settings(deadline=None)
def test_texts_without_a_zone_are_at_home_where_the_stream_says(moments, zone):
    expected = []
    for moment in moments:
        local = moment.replace(tzinfo=ZoneInfo(zone), fold=0)
        if local.utcoffset() != local.replace(fold=1).utcoffset():
            return  # in the hour of a clock change: tested below
        if local.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) != moment:
            return  # skipped by a clock change: tested below
        expected.append(ns_of(local.astimezone(UTC)))
    assert parse_texts(pa.array([m.isoformat() for m in moments]), "auto", zone).tolist() == expected
    mixed = [m.isoformat() for m in moments] + ["20200101T000000Z"]
    assert parse_texts(pa.array(mixed), "auto", zone).tolist() == [*expected, 1577836800 * 10**9]


def test_clock_changes():
    spring, autumn = "2024-03-31T02:30:00", "2024-10-27T02:30:00"
    parsed = parse_texts(pa.array([spring, autumn]), "auto", "Europe/Berlin")
    assert parsed.tolist() == [
        ns_of(datetime(2024, 3, 31, 1, 0, tzinfo=UTC)),  # the moment of the jump
        ns_of(datetime(2024, 10, 27, 0, 30, tzinfo=UTC)),  # the first of the two
    ]
    assert localise(np.array([ABSURD, UNREADABLE]), "Europe/Berlin").tolist() == [ABSURD, UNREADABLE]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-05", 1704412800 * 10**9),
        ("2024-01-05 10:00", 1704448800 * 10**9),
        ("2024-W01-5", 1704412800 * 10**9),
        ("2024-01-05T10:00:00,5Z", 1704448800 * 10**9 + 5 * 10**8),
        ("2024-01-05T10:00:00.123456789+00:00", 1704448800 * 10**9 + 123456789),
        ("2024-01-05T10:00:00.1234567899+01:00", 1704445200 * 10**9 + 123456789),
        (" 2024-01-05T10:00:00Z ", 1704448800 * 10**9),
        ("1704448800", 1704448800 * 10**9),
        ("1704448800.25", 1704448800 * 10**9 + 25 * 10**7),
        ("+1704448800", 1704448800 * 10**9),
        ("0x10", UNREADABLE),
        ("2024-02-30", UNREADABLE),
        ("yesterday", UNREADABLE),
        ("now", UNREADABLE),
        ("", UNREADABLE),
        ("1969-12-31T23:59:59Z", ABSURD),
        ("0001-01-01T00:00:00+14:00", ABSURD),
        ("9999-12-31T23:59:59Z", ABSURD),
        ("2200-01-01", ABSURD),
        ("99999999999999999999999", ABSURD),
        ("1" * 5000, UNREADABLE),
    ],
)
def test_spellings(text, expected):
    assert parse_times([text], "auto", "UTC").tolist() == [expected]
    assert parse_times([text, "2024-W01-5"], "auto", "UTC").tolist()[0] == expected


def test_what_is_no_time_leaves_the_others():
    assert parse_times([None, NOW, True], "auto", "UTC").tolist() == [UNREADABLE, NOW * 10**9, UNREADABLE]
    assert parse_times([None, None], "auto", "UTC").tolist() == [UNREADABLE, UNREADABLE]


def test_a_compact_date_needs_the_unit_iso():
    assert parse_times(["20240105"], "iso", "UTC").tolist() == [1704412800 * 10**9]
    assert parse_times(["2024-01-05"], "s", "UTC").tolist() == [UNREADABLE]


def test_fractions_of_seconds_survive():
    assert parse_epochs(np.array([1700000000.123456]), "auto").tolist() == [1700000000123456000]
    assert parse_epochs(np.array([1700000000123.5]), "ms").tolist() == [1700000000123500000]
    assert (
        parse_epochs(np.array([np.nan, np.inf, -np.inf, -1.0, 1e300]), "s").tolist()
        == [UNREADABLE] * 3 + [ABSURD] * 2
    )


def test_steps_of_100_ns_have_a_unit_and_are_no_silent_times():
    ticks = np.array([(NOW + 62_135_596_800) * 10**7 + 5])
    windows = np.array([(NOW + 11_644_473_600) * 10**7 + 5])
    wanted = [NOW * 10**9 + 500]
    assert parse_epochs(ticks, "ticks").tolist() == wanted
    assert parse_epochs(windows, "filetime").tolist() == wanted
    assert [parse_epochs(one, "auto").tolist() for one in (ticks, windows)] == [[IMPLAUSIBLE]] * 2
    assert parse_epochs(np.array([-1, 2**62]), "ticks").tolist() == [ABSURD] * 2


@pytest.mark.parametrize(
    "text",
    [
        "14-Nov-23 22:13:20",
        "14/Nov/2023:22:13:20 +0000",
        "2023-11-14 23:13:20 CET",
        "Tue, 14 Nov 2023 17:13:20 EST",
        "/Date(1700000000000)/",
        "/Date(1700000000000+0100)/",
    ],
)
def test_further_spellings(text):
    assert parse_times([text], "auto", "UTC").tolist() == [NOW * 10**9]


@pytest.mark.parametrize(
    "text",
    [
        "2026M07",
        "07/2026",
        "07-2026",
        "Jul 2026",
        "2026 Jul",
        "July 2026",
        "Juil. 2026",
        "Q3 2026",
        "2026-Q3",
        "2026Q3",
    ],
)
def test_months_and_quarters(text):
    assert parse_times([text], "auto", "UTC").tolist() == [ns_of(datetime(2026, 7, 1, tzinfo=UTC))]


@pytest.mark.parametrize(
    "text", ["Jul-26", "13/2026", "Marketing 2026", "Juniper 2026", "2026M13", "Q5 2026", "2026"]
)
def test_no_months(text):
    assert parse_times([text], "auto", "UTC")[0] < 0


AT = datetime(2026, 3, 14, 13, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "14. März 2026 13:05",
        "14-Mär-2026 13:05:00",
        "14 mars 2026 13:05",
        "14 marzo 2026 13:05",
        "14 maart 2026 13:05",
        "14.03.2026 13:05 Uhr",
        "14.03.2026 13.05.00",
        "13:05:00 14.03.2026",
        "2026-03-14-13.05.00.000000",
        "14-MAR-26 01.05.00.000000 PM",
        "2026. 03. 14. 13:05:00",
        "2026年03月14日 13:05:00",
        "[14/Mar/2026:14:05:00 +0100]",
        "Sat Mar 14 14:05:00 CET 2026",
        "2026-03-14 14:05:00 Europe/Berlin",
        "1773493500,0",
        "1.7734935E9",
    ],
)
def test_spellings_of_the_world(text):
    assert parse_times([text], "auto", "UTC").tolist() == [ns_of(AT)]


@pytest.mark.parametrize(
    "text",
    [
        "14 Foo 2026 13:05",
        "2026-03-14 14:05:00 IST",
        "2026-03-14 14:05:00 Mars/Base",
        "1.2.2026 14.03.2026",
        "13:05 14:05",
        "14/03/04.05.06",
    ],
)
def test_texts_that_are_no_time(text):
    assert parse_times([text], "auto", "UTC").tolist() == [UNREADABLE]


def test_days_of_a_spreadsheet_with_a_decimal_comma():
    assert parse_times(["46095,5"], "spreadsheet", "UTC").tolist() == [ns_of(AT.replace(hour=12, minute=0))]
