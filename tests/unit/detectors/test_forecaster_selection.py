"""The Gaussian candidate is river's, and the selection goes by recent error."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DetectorSpec, build, contract
from detectors.stages.forecaster_selection import (
    COL_MEAN,
    COL_ROWS,
    FORECASTER_GAUSSIAN,
    FORECASTER_LAST_VALUE,
    FORECASTER_LSTM,
    FORECASTER_SEASONAL,
    FORECASTER_STATIC,
)


def test_the_gaussian_candidate_is_rivers():
    from river import proba

    rng = np.random.default_rng(0)
    theirs, values = proba.Gaussian(), rng.normal(5, 3, 500)
    for value in values:
        theirs.update(value)
    detector = build(DetectorSpec(tier="light"))
    state = detector.initial(1)
    rows = np.arange(len(values))
    contract.run_batches(
        detector, contract.make_points(np.zeros(500, np.int32), values[:, None], rows), state=state
    )
    ours = state["ladder.gauss"][0, 0]
    assert ours[COL_ROWS] == theirs.n_samples
    assert values[0] + ours[COL_MEAN] == pytest.approx(theirs.mu)


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
