"""Young series under the decision by usual ranges: few false alarms, and what is far outside is found."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.calibration_families import CADENCES_NS, alarm_starts, family_points
from detectors import DetectorSpec, build, contract
from detectors.base import CAUSES, Points, Verdicts

SERIES, ROWS = 24, 2_000
EVERY_NS = CADENCES_NS["5m"]
FAULT_ROW = 150


def values_of(family: str) -> NDArray[np.float64]:
    """Return the first rows (SERIES, ROWS) of each series of an undisturbed family."""
    return family_points(family, SERIES, EVERY_NS).values.reshape(SERIES, -1)[:, :ROWS].copy()


def verdicts_of(values: NDArray[np.float64], preset: str = "sensor") -> Verdicts:
    series, rows = values.shape
    time = np.tile(1_767_571_200_000_000_000 + np.arange(rows) * EVERY_NS, series)
    points = Points(
        np.repeat(np.arange(series, dtype=np.int32), rows),
        time,
        values.reshape(-1, 1),
        np.zeros(values.size, np.int32),
        np.full(values.size, EVERY_NS, np.int64),
    )
    spec = DetectorSpec(tier="light", preset=preset, decision="usual_range")
    return contract.run_batches(build(spec), points)


@pytest.mark.parametrize(
    "family",
    ["normal", "ar1 .99", "ar1 .995", "t3", "garch", "rare counts", "walk", "seasonal", "minute traffic"],
)
def test_young_undisturbed_series_have_one_false_alarm_in_10_000_rows(family: str) -> None:
    """Series with heavy tails have two to three: their largest values are yet to come."""
    flag = verdicts_of(values_of(family)).flag.reshape(SERIES, ROWS)
    alarms = sum(int((alarm_starts(one) >= 50).sum()) for one in flag)
    assert alarms <= (12 if family in ("t3", "garch") else 5)  # in 46,800 rows


@pytest.mark.parametrize("family", ["normal", "ar1 .9", "seasonal"])
def test_spike_of_twenty_spreads_is_found_at_row_150(family: str) -> None:
    values = values_of(family)[:, : FAULT_ROW + 10]
    past = values[:, :FAULT_ROW]
    middle = np.median(past, axis=1, keepdims=True)
    values[:, FAULT_ROW] += 20 * 1.4826 * np.median(np.abs(past - middle), axis=1)
    found = verdicts_of(values)
    at, high, flag = (
        one.reshape(SERIES, -1)[:, FAULT_ROW] for one in (found.observed, found.usual_high, found.flag)
    )
    assert flag.mean() >= 0.9
    assert (at > high)[flag].all()


def test_first_change_of_a_constant_series_is_no_alarm() -> None:
    values = np.full((1, 300), 50.0)
    values[0, FAULT_ROW] = 51.0
    assert not verdicts_of(values).flag.any()


def test_long_standstill_of_a_price_with_rare_ties_is_found() -> None:
    rng = np.random.default_rng(3)
    price = 120 * np.exp(np.cumsum(rng.normal(0, 0.0004, (1, 5_300)), axis=1))
    price[0, 5_200:5_240] = price[0, 5_200]
    found = verdicts_of(price.round(4), preset="stock")
    rows = np.flatnonzero(found.flag)
    assert len(rows)
    assert set(rows) <= set(range(5_200, 5_240))
    assert {CAUSES[c] for c in found.cause[rows]} == {"flatline"}
