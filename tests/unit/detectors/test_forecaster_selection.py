"""The Gaussian candidate is river's, and the selection goes by recent error."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DetectorSpec, build, contract
from detectors.stages.forecaster_selection import (
    COL_MEAN,
    COL_ROWS,
    COL_SQUARES,
    FORECASTER_GAUSSIAN,
    FORECASTER_LAST_VALUE,
    FORECASTER_LSTM,
    FORECASTER_SEASONAL,
    FORECASTER_STATIC,
    welford,
)


def test_the_gaussian_candidate_is_rivers():
    from river import proba

    rng = np.random.default_rng(0)
    ours, theirs = np.zeros(3), proba.Gaussian()
    for value in rng.normal(5, 3, 500):
        welford(ours, value)
        theirs.update(value)
    assert ours[COL_MEAN] == pytest.approx(theirs.mu)
    assert np.sqrt(ours[COL_SQUARES] / (ours[COL_ROWS] - 1)) == pytest.approx(theirs.sigma)


def verdicts(tier, values):
    rows = np.arange(len(values))
    given = contract.make_points(np.zeros(len(values), np.int32), np.asarray(values, float)[:, None], rows)
    return contract.run_batches(build(DetectorSpec(tier=tier)), given)


def test_the_mean_forecasts_the_first_points_and_then_the_gaussian():
    forecaster = verdicts("light", np.random.default_rng(0).normal(size=40)).forecaster
    assert forecaster[0] == 0
    assert set(forecaster[1:8]) == {FORECASTER_STATIC}
    assert (
        forecaster[16:] == FORECASTER_GAUSSIAN
    ).mean() > 0.9  # the last value of noise is a worse guess than its mean


def test_a_season_takes_over_where_it_forecasts_better():
    rng = np.random.default_rng(0)
    wave = np.tile(rng.normal(size=7) * 10, 60) + rng.normal(size=420) * 0.1
    assert (verdicts("light", wave).forecaster[-50:] == FORECASTER_SEASONAL).all()


def test_the_last_value_takes_over_in_a_walk():
    walk = np.random.default_rng(0).normal(size=600).cumsum()
    found = verdicts("light", walk)
    assert (found.forecaster[-50:] == FORECASTER_LAST_VALUE).mean() > 0.9
    assert found.expected[-1, 0] == pytest.approx(walk[-2], rel=1e-4)


def test_the_readout_takes_over_where_it_forecasts_better():
    rng = np.random.default_rng(0)
    walk = np.zeros(600)
    for t in range(2, 600):
        walk[t] = 1.6 * walk[t - 1] - 0.7 * walk[t - 2] + rng.normal()
    assert (verdicts("standard", walk).forecaster[-50:] == FORECASTER_LSTM).mean() > 0.9
