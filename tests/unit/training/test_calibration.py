"""Counts of rare rows and of values inside their interval."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.training.calibration import CalibrationCounts


def test_uniform_probabilities_are_within_the_factors():
    rng = np.random.default_rng(0)
    counts = CalibrationCounts()
    seen = np.arange(1, 200_001)
    counts.add_rarity(-np.log10(rng.random(200_000)).astype(np.float32), seen)
    found = counts.frequencies()
    assert [one.rows for one in found] == [199_991, 199_901, 199_001, 190_001]
    assert all(one.within for one in found)
    assert all(one.low <= 10.0**-one.decade <= one.high for one in found)


def test_a_rarity_that_comes_too_often_is_not_within():
    counts = CalibrationCounts()
    rarity = np.zeros(10_000, np.float32)
    rarity[::25] = 2
    counts.add_rarity(rarity, np.full(10_000, 500))
    found = counts.frequencies()
    assert found[1].factor == pytest.approx(4)
    assert found[1].within is False
    assert found[2].within is None, "500 rows state no rarity of 1 in 1,000"
    assert np.isnan(found[3].frequency)


def test_unknown_intervals_and_missing_values_do_not_count():
    counts = CalibrationCounts()
    value = np.array([1.0, 5.0, np.nan, 2.0])
    lower, upper = np.array([0, 0, 0, np.nan], np.float32), np.array([2, 2, 2, 3], np.float32)
    counts.add_interval(value, lower, upper)
    assert (counts.values, counts.inside, counts.coverage) == (2, 1, 0.5)
    assert np.isnan(CalibrationCounts().coverage)
