"""Tail calibration: the halved histogram against exact ranks and exact tails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.jit import log2
from detectors.stages.tail_calibration import HALVING_ROWS, TailCalibration, _halve


def surprises(errors, quantile=0.9, bins=64):
    calibration = TailCalibration((quantile,), bins)
    errors = np.asarray(errors, np.float32)[:, None]
    return calibration.run(calibration.initial(1), np.zeros(len(errors), np.int32), errors, -1, 4.0)[0][:, 0]


@pytest.mark.parametrize("quantile", [0.9, 0.99])
def test_a_surprise_is_a_tail_probability(quantile):
    u = surprises(np.random.default_rng(0).exponential(size=20_000) * 1e6, quantile)[5_000:]
    for level in (0.5, 1.0, 2.0, 3.0):
        assert np.mean(u >= level) == pytest.approx(10**-level, rel=0.35)


def test_a_lighter_tail_is_never_called_rarer_than_it_is():
    u = surprises(np.abs(np.random.default_rng(0).normal(size=20_000)))[5_000:]
    for level in (1.5, 2.0, 3.0):
        assert np.mean(u >= level) <= 1.35 * 10**-level


def test_beyond_the_tail_it_stays_linear():
    past = np.random.default_rng(1).exponential(size=5_000)
    u = [surprises([*past, error])[-1] for error in (12.0, 18.0, 24.0)]
    assert u[1] - u[0] == pytest.approx(u[2] - u[1], rel=0.01) or u[2] == pytest.approx(
        2 * np.log10(5_001), rel=0.01
    )
    assert u[0] == pytest.approx(12 * np.log10(np.e), rel=0.2)


def test_a_start_on_zeros_does_not_set_the_range():
    past = np.r_[np.zeros(2_000), np.random.default_rng(2).exponential(size=4_000)]
    assert surprises([*past, 10.0])[-1] == pytest.approx(surprises([*past[2_000:], 10.0])[-1], abs=1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 2.0**100, allow_nan=False, width=32) | st.just(float("nan")), max_size=200))
def test_it_is_finite_for_whatever_comes(errors):
    u = surprises(errors, bins=20) if errors else np.zeros(0)
    assert np.isfinite(u).all()
    assert (u >= 0).all()


@settings(max_examples=200, deadline=None)
@given(st.floats(float(np.float32(1e-30)), 2.0**100, width=32))
def test_the_fast_logarithm_is_the_logarithm(x):
    assert log2(np.float32(x)) == pytest.approx(np.log2(x), rel=3e-7, abs=2e-7)


def test_only_the_last_rows_are_remembered():
    """Rows before the last 20,000 fade: after 60,000 rows a thousand times as large, a row of the
    first kind is among the least.
    """
    rng = np.random.default_rng(3)
    u = surprises(np.r_[rng.exponential(size=20_000), 1e3 * rng.exponential(size=60_000)])
    for level in (1.0, 2.0, 3.0):
        assert np.mean(u[-20_000:] >= level) == pytest.approx(10**-level, rel=0.35)


def test_memory_does_not_grow_with_the_rows():
    calibration = TailCalibration((0.9,), 20)
    state = calibration.initial(1)
    errors = np.random.default_rng(4).exponential(size=(50_000, 1)).astype(np.float32)
    calibration.run(state, np.zeros(len(errors), np.int32), errors, -1, 4.0)
    mass, zeros = state["calibration.head"][0, 0, :2]
    assert HALVING_ROWS // 2 <= mass <= HALVING_ROWS
    assert state["calibration.counts"].sum() + zeros == mass


@given(st.lists(st.integers(0, 3_000), min_size=2, max_size=12), st.integers(0, 3_000))
def test_halving_halves_the_errors_above_any_of_them(counts, zeros):
    kept = np.array([counts], np.uint16)
    head = np.array([[sum(counts) + zeros, zeros, 7]], np.uint16)
    _halve(kept, head, 0)
    above = np.cumsum(counts[::-1])
    assert np.cumsum(kept[0, ::-1]).tolist() == (above // 2).tolist()
    assert head[0].tolist() == [(above[-1] + zeros) // 2, (above[-1] + zeros) // 2 - above[-1] // 2, 7]


def test_a_quarantine_ends_after_as_many_rows_as_are_kept():
    calibration = TailCalibration((0.9,), 20, quarantine=3.0)
    errors = np.r_[np.full(200, 1.0), np.full(300, 1e6)].astype(np.float32)[:, None]
    state, slot = calibration.initial(1), np.zeros(500, np.int32)
    found = calibration.run(state, slot, errors, -1, 4.0)[0][:, 0]
    assert (found[200:401] >= 3).all()
    assert found[-1] < 3
