"""Inputs of the calendar and of earlier days: columns, clock changes, gaps, and what is kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from detectors.base import State
from detectors.forecasters import lstm_features
from detectors.forecasters.calendar_inputs import TURNS, CalendarInputs
from detectors.forecasters.frozen_network import FrozenNetwork
from detectors.forecasters.lstm_features import FEATURES
from detectors.forecasters.network_spec import SPEC_TENSOR, NetworkSpec, conflicts, spec_of
from detectors.forecasters.stream_network import StreamNetwork

HOUR = 3_600 * 10**9
WEEKDAYS, HOLIDAYS = 2 * len(TURNS), 2 * len(TURNS) + 7


def local(text: str, zone: str = "Europe/Berlin") -> int:
    """Return a wall-clock time of a zone in ns since the epoch."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 10**9


def run(
    spec: NetworkSpec, time: np.ndarray, x: np.ndarray, every: int = HOUR, state: Any = None
) -> np.ndarray:
    """Return the inputs of one series behind those of ``lstm_features``."""
    one = CalendarInputs(spec)
    slot, missed = np.zeros(len(x), np.int32), np.zeros(len(x), np.int32)
    rows = lstm_features.advance(lstm_features.initial(1, 256), slot, x, missed)
    kept = one.initial(1) if state is None else state
    return one.advance(kept, slot, (time, np.full(len(time), every)), x, rows)[:, FEATURES:]


def calendar(zone: str, holidays: str, text: str) -> np.ndarray:
    """Return the inputs of the row before a wall-clock time."""
    time = np.array([local(text, zone) - HOUR])
    return run(NetworkSpec("gru", inputs="calendar", zone=zone, holidays=holidays), time, np.ones(1))[0]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_hour_and_weekday_are_those_of_the_next_row_on_the_wall_clock(zone: str) -> None:
    for day in ("2026-01-14", "2026-07-15"):  # Wednesdays of winter and of summer
        found = calendar(zone, "", f"{day}T06:00")
        assert found[0] == pytest.approx(1)  # a quarter of a day: sine of one turn
        assert found[len(TURNS)] == pytest.approx(0, abs=1e-6)
        assert found[WEEKDAYS:HOLIDAYS].tolist() == [0, 0, 1, 0, 0, 0, 0]


def test_holidays_are_known_on_the_day_the_day_after_and_a_week_after() -> None:
    found = {
        day: calendar("Europe/Berlin", "DE-BY", f"2026-{day}T06:00")[HOLIDAYS:].tolist()
        for day in ("01-06", "01-07", "01-13", "01-14")
    }
    assert found == {"01-06": [1, 0, 0], "01-07": [0, 1, 0], "01-13": [0, 0, 1], "01-14": [0, 0, 0]}
    assert not calendar("Europe/Berlin", "", "2026-01-06T06:00")[HOLIDAYS:].any()


def lags(text: str, days: int, zone: str = "Europe/Berlin") -> tuple[np.ndarray, np.ndarray]:
    """Return lags of hourly values, which are the hour of the day, on Saturday + 100; and the next hours."""
    time = local(text) + np.arange(days * 24, dtype=np.int64) * HOUR
    wall = [datetime.fromtimestamp(t // 10**9, ZoneInfo(zone)) for t in time.tolist()]
    x = np.array([one.hour + 100.0 * (one.weekday() == 5) for one in wall])
    rows = run(NetworkSpec("gru", inputs="lags", zone=zone), time, x)
    unit_free = np.sinh(rows[:, [0, 2]].astype(np.float64))
    slot, missed = np.zeros(len(x), np.int32), np.zeros(len(x), np.int32)
    unit = lstm_features.advance(lstm_features.initial(1, 256), slot, x, missed).unit
    values = np.where(rows[:, [1, 3]] > 0, x[:, None] + unit_free * unit[:, None], np.nan)
    following = np.array(
        [datetime.fromtimestamp((t + HOUR) // 10**9, ZoneInfo(zone)).hour for t in time.tolist()]
    )
    return values, following


@pytest.mark.parametrize("text", ["2026-03-21", "2026-10-17", "2026-06-13"])
def test_the_same_time_of_earlier_days_over_clock_changes(text: str) -> None:
    """The hour of yesterday and of last week at the next row, a week with a clock change and one without."""
    values, following = lags(text, 12)
    yesterday, last_week = values.T
    known = ~np.isnan(yesterday)
    assert known[:22].sum() == 0
    assert known[24:].mean() > 0.98
    assert np.allclose((yesterday[known] + 1) % 100, following[known] + 1, atol=1e-3)
    week = ~np.isnan(last_week)
    assert week[: 6 * 24].sum() == 0
    assert week[8 * 24 :].all() or text != "2026-06-13"
    assert np.allclose((last_week[week] + 1) % 100, following[week] + 1, atol=1e-3)
    saturday = np.arange(len(values)) // 24 % 7 == 0
    assert (last_week[saturday & week & (following > 1) & (following < 23)] > 99).all()


def test_a_gap_leaves_unknown_what_lies_in_it() -> None:
    time = np.r_[np.arange(30), np.arange(54, 80)] * HOUR
    known = run(NetworkSpec("gru", inputs="lags"), time, np.arange(56.0))[:, 1]
    assert known[24:30].all()
    assert not known[30:53].any()  # their yesterday is in the gap
    assert known[54:].all()


def test_an_unknown_cadence_and_missing_values_are_no_error() -> None:
    x = np.where(np.arange(60) % 3, np.arange(60.0), np.nan)
    found = run(NetworkSpec("gru", inputs="calendar,lags"), np.arange(60) * HOUR, x, every=0)
    assert np.isfinite(found).all()


def test_quarters_hold_means_and_stay_in_their_bounds() -> None:
    one = CalendarInputs(NetworkSpec("gru", inputs="lags"))
    state: State = one.initial(1)
    size = sum(array.nbytes for array in state.values())
    minutes = np.arange(9 * 1440, dtype=np.int64) * (HOUR // 60)
    run(NetworkSpec("gru", inputs="lags"), minutes, np.arange(len(minutes)) % 15.0, HOUR // 60, state)
    assert sum(array.nbytes for array in state.values()) == size == 8 * 96 * 4 + 16 + 8
    assert np.allclose(state["lag_values"] + state["lag_anchor"], 7)


def test_weights_of_before_load_and_their_bytes_do_not_change() -> None:
    plain = NetworkSpec("gru")
    text = plain.tensor().tobytes().decode()
    assert "inputs" not in text
    assert "zone" not in text
    assert spec_of({SPEC_TENSOR: plain.tensor()}) == plain
    more = NetworkSpec("gru", inputs="calendar,lags", zone="Europe/Berlin", holidays="DE")
    assert spec_of({SPEC_TENSOR: more.tensor()}) == more


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"inputs": "lags,calendar"}, "inputs"),
        ({"inputs": "clock"}, "inputs"),
        ({"holidays": "XX"}, "holidays"),
    ],
)
def test_a_damaged_spec_is_refused(keys: dict[str, str], key: str) -> None:
    assert [one.key for one in conflicts(NetworkSpec("gru", **keys))] == [key]
    with pytest.raises(ValueError, match=key):
        spec_of({SPEC_TENSOR: NetworkSpec("gru", **keys).tensor()})


def test_new_weights_leave_the_values_of_earlier_days() -> None:
    net = FrozenNetwork(StreamNetwork(NetworkSpec("gru", inputs="lags")).tensors())
    state = net.initial(2)
    state["h"][:], state["lag_values"][:] = 1, 2
    net.forget(state)
    assert (state["h"] == 0).all()
    assert (state["lag_values"] == 2).all()
