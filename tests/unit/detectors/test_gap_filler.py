"""Filled gaps: against straight lines on gaps whose values are known, and where nothing can be learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detectors.forecasters.base import ForecasterConfig
from detectors.forecasters.bidirectional import Bidirectional
from detectors.training.gap_filler import Method, estimate_series
from detectors.training.gap_inputs import INPUTS
from detectors.training.gap_network import FillSettings, apply_network

QUICK = FillSettings(updates=80)
GAP_ROWS = 12


def waves(count: int = 2, rows: int = 600) -> list[np.ndarray]:
    rng, t = np.random.default_rng(0), np.arange(rows)
    return [
        50 + 6 * np.sin(2 * np.pi * t / (24 + 5 * i)) + np.sin(2 * np.pi * t / 11) + rng.normal(0, 0.2, rows)
        for i in range(count)
    ]


def gaps(rows: int, seed: int) -> np.ndarray:
    """Return which rows are missing (rows,): gaps of ``GAP_ROWS`` in a tenth of them, none at the ends."""
    out, rng = np.zeros(rows, np.bool_), np.random.default_rng(seed)
    while out.mean() < 0.1:
        start = int(rng.integers(1, rows - GAP_ROWS - 1))
        out[start : start + GAP_ROWS] = True
    return out


def line_of(values: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(np.isfinite(values))
    return np.interp(np.arange(len(values)), known, values[known])


def test_the_network_fills_gaps_better_than_straight_lines() -> None:
    whole = waves()
    masks = [gaps(len(one), seed) for seed, one in enumerate(whole)]
    holed = [np.where(mask, np.nan, one) for mask, one in zip(masks, whole, strict=True)]
    found = estimate_series(holed, [np.ones(len(one), np.bool_) for one in whole], FillSettings(updates=200))
    assert Method.NETWORK in {one.method for one in found}
    inside = []
    for one, values, mask, rest in zip(found, whole, masks, holed, strict=True):
        error = np.abs(one.value - values)[mask].mean()
        assert error < 0.6 * np.abs(line_of(rest) - values)[mask].mean()
        assert one.error < 0.8, "what it states of itself"
        assert np.abs(one.value - values)[~mask].mean() < 0.4, "estimates of known rows, without themselves"
        inside.append(((one.lower <= values) & (values <= one.upper))[mask].mean())
    assert 0.7 < np.mean(inside) <= 1.0


def test_a_season_bridges_gaps_that_are_longer_than_it() -> None:
    t = np.arange(1200)
    whole = 10 + 0.002 * t + 5 * (t % 30 < 9)
    holed = whole.copy()
    holed[400:480] = np.nan
    (found,) = estimate_series([holed], [np.ones(len(t), np.bool_)], QUICK)
    assert found.method == Method.SEASON
    assert np.abs(found.value - whole)[400:480].max() < 0.2


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.r_[np.full(50, 3.0), np.nan, np.full(49, 3.0)], np.full(100, 3.0)),
        (np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, 3.0])),
        (np.full(40, np.nan), np.full(40, np.nan)),
        (np.empty(0), np.empty(0)),
    ],
    ids=["constant", "short", "nothing known", "empty"],
)
def test_what_nothing_can_be_learned_from_gets_straight_lines(values: np.ndarray, wanted: np.ndarray) -> None:
    (found,) = estimate_series([values], [np.ones(len(values), np.bool_)], QUICK)
    assert found.method == Method.LINE
    np.testing.assert_array_equal(found.value, wanted)
    assert np.isnan(found.error)


@pytest.mark.parametrize("kept", [slice(1000, None), slice(0, 200), slice(None, None, 8)])
def test_a_channel_that_is_rarely_known_is_estimated(kept: slice) -> None:
    (values,) = waves(1, 1200)
    holed = np.full(1200, np.nan)
    holed[kept] = values[kept]
    (found,) = estimate_series([holed], [np.ones(1200, np.bool_)], FillSettings(updates=5))
    assert np.isfinite(found.value).all()
    assert np.abs(found.value - values)[kept].mean() < 5


def test_windows_of_the_network_are_joined_without_seams() -> None:
    network = Bidirectional(ForecasterConfig(inputs=INPUTS, hidden=8, seed=0)).eval()
    x = np.random.default_rng(0).normal(size=(2_000, INPUTS)).astype(np.float32)
    value, lower, upper = apply_network(network, x)
    with torch.no_grad():
        whole = network.output.location(network(torch.from_numpy(x)[None], network.initial(1))[0][0, :, 0])
    np.testing.assert_allclose(value, whole.numpy(), atol=1e-4)
    assert (lower < value).all()
    assert (value < upper).all()


def test_anomalies_are_not_learned_and_the_result_is_repeatable() -> None:
    (values,) = waves(1, 600)
    spoiled, usable = values.copy(), np.ones(600, np.bool_)
    spoiled[200:260], usable[200:260] = 5000.0, False
    spoiled[300:310] = np.nan
    first, second = (estimate_series([spoiled], [usable], QUICK)[0] for _ in range(2))
    np.testing.assert_array_equal(first.value, second.value)
    assert np.abs(first.value - values)[300:310].max() < 8
