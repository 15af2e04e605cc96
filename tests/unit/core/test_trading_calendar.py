"""Trading time: nothing is missed while the market is closed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.trading_calendar import (
    DAY_NS,
    HOUR_NS,
    Calendar,
    moment_of,
    open_time,
    session_number,
    step_time,
    steps_between,
)
from pipeline.windows.event_time import EventTimeProcessor
from tests.support.decoding import columns, stream

MINUTE = HOUR_NS // 60
FORM = {"json": {"series": "id", "time": "ts", "values": "a"}}


def ns(text: str) -> int:
    return pd.Timestamp(text, tz="UTC").value


@pytest.fixture(scope="module")
def new_york() -> tuple:
    return arrays(Calendar.of("XNYS"))


def arrays(calendar: Calendar) -> tuple:
    return calendar.sessions, calendar.opens, calendar.closes, calendar.opened


def missed(calendar: str | None, times: list[str], **settings_) -> list[int]:
    windows = EventTimeProcessor(stream(FORM, calendar=calendar, **settings_))
    ready = columns(["a"] * len(times), [ns(t) for t in times])
    return windows.admit(windows.initial(1), np.zeros(len(times), np.int32), ready).points.missed.tolist()


def test_weekends_nights_and_holidays_are_no_gaps():
    # the 15th is a holiday, the 18th is missing
    days = ["2024-01-11", "2024-01-12", "2024-01-16", "2024-01-17", "2024-01-19"]
    assert missed("XNYS", days, every="1d") == [0, 0, 0, 0, 1]
    assert missed(None, days, every="1d") == [0, 0, 3, 0, 1]
    minutes = [
        "2024-01-12 20:58",
        "2024-01-12 20:59",
        "2024-01-16 14:30",
        "2024-01-16 14:33",
        "2024-01-16 21:30",
    ]
    assert missed("XNYS", minutes, every="1m") == [0, 0, 0, 2, 386]
    # the day after Thanksgiving closes early
    assert missed("XNYS", ["2023-11-24 17:59", "2023-11-27 14:30"], every="1m") == [0, 0]
    assert missed("XHKG", ["2024-01-05 03:59", "2024-01-05 05:00"], every="1m") == [0, 0]  # lunch
    assert missed("24/7", ["2024-01-05 03:59", "2024-01-05 05:00"], every="1m") == [0, 60]


@pytest.mark.parametrize("label", ["00:00", "05:00", "14:30", "21:00"])
@pytest.mark.parametrize("name", ["XNYS", "XTKS"])
def test_daily_bars_may_be_dated_in_any_way(name, label):
    sessions = Calendar.of(name).sessions
    sessions = sessions[(sessions >= ns("2022-01-01")) & (sessions < ns("2024-01-01"))]
    dated = [str(pd.Timestamp(s) + pd.Timedelta(f"{label}:00")) for s in sessions]
    assert sum(missed(name, dated)) == 0  # the cadence is learned
    assert sum(missed(name, dated[:100] + dated[103:], every="1d")) == 3
    # Midnight in Tokyo is the evening before.
    assert sum(missed(name, [str(pd.Timestamp(s) - pd.Timedelta("9h")) for s in sessions])) == 0


@given(
    st.integers(ns("2015-01-01"), ns("2026-01-01")),
    st.integers(1, 10**6),
    st.sampled_from([MINUTE, 5 * MINUTE, HOUR_NS, DAY_NS, 7 * DAY_NS]),
)
@settings(deadline=None)
def test_steps_add_up(new_york, start, length, every):
    middle, end = start + length * HOUR_NS // 7, start + length * HOUR_NS // 3
    whole = steps_between(start, end, every, *new_york)
    parts = steps_between(start, middle, every, *new_york) + steps_between(middle, end, every, *new_york)
    assert abs(whole - parts) <= 1
    assert 0 <= whole <= (end - start) // every + 1


@given(st.integers(ns("1985-01-01"), ns("2040-01-01")), st.integers(0, 10**15))
@settings(deadline=None)
def test_open_time_continues_beyond_the_known_years(new_york, start, more):
    opened, later = open_time(start, *new_york[1:]), open_time(start + more, *new_york[1:])
    assert 0 <= later - opened <= more
    assert moment_of(opened, *new_york[1:]) >= min(start, new_york[2][-1]) or opened < 0
    assert session_number(start, new_york[0]) <= session_number(start + more, new_york[0])
    if start < ns("1989-12-01"):
        assert open_time(start + HOUR_NS, *new_york[1:]) - opened == HOUR_NS


@given(
    st.integers(ns("2020-01-01"), ns("2024-01-01")),
    st.integers(2, 40),
    st.sampled_from([MINUTE, HOUR_NS, DAY_NS]),
)
@settings(deadline=None)
def test_filled_points_come_when_the_market_is_open(new_york, start, steps, every):
    sessions, opens, closes, _ = new_york
    if every == DAY_NS:
        first = sessions[session_number(start, sessions)] + 21 * HOUR_NS
        last = sessions[session_number(start, sessions) + steps] + 21 * HOUR_NS
    else:
        first = moment_of(open_time(start, *new_york[1:]) // every * every, *new_york[1:])
        last = moment_of(open_time(first, *new_york[1:]) + steps * every, *new_york[1:])
    assert steps_between(first, last, every, *new_york) == steps
    times = [step_time(first, last, k, steps, every, *new_york) for k in range(1, steps)]
    assert all(first < t < last for t in times)
    assert all(x < y for x, y in pairwise(times))
    for k, t in enumerate(times, 1):
        assert steps_between(first, t, every, *new_york) == k
        if every != DAY_NS:
            i = np.searchsorted(opens, t, side="right") - 1
            assert opens[i] <= t < closes[i]


@given(st.integers(0, 10**18), st.integers(2, 99), st.integers(1, 10**12))
def test_without_a_calendar_filled_points_are_even(first, steps, every):
    times = [first] + [
        step_time(first, first + steps * every, k, steps, every, *arrays(Calendar.always()))
        for k in range(1, steps)
    ]
    assert set(np.diff(times).tolist()) == {every}


def test_a_calendar_whose_holidays_are_not_known_far_back():
    assert len(Calendar.of("XTKS").sessions) > 2000
