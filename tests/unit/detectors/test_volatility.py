"""Splits of stocks: told from wrong prices and falls by the usual volume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.stock_splits import EVENT, fall, ordinary_splits, split, walks, wrong_price
from detectors import DetectorSpec, build, contract
from detectors.channel_batch import ChannelBatch
from detectors.scorers.volatility import USUAL_VOLUME, Volatility

SERIES, DAILY, MINUTES = 300, "daily, 1 %", "minute, 0.1 %"
DAY = 86_400_000_000_000
STORED = np.load(Path(__file__).with_name("golden") / "state_6_stock.npz")


def found_splits(price, volume, missed=0):
    """Return the split (S, ROWS) that is found in each row, as a logarithm."""
    n, rows = price.shape
    x = np.log(np.stack([price, volume], axis=-1)).transpose(1, 0, 2).ravel()
    slot = np.tile(np.arange(2 * n, dtype=np.int32), rows)
    gaps = np.zeros((rows, 2 * n), np.int32)
    gaps[EVENT] = missed
    batch = ChannelBatch(slot, x, np.repeat(np.arange(rows), 2 * n), gaps.ravel(), np.full(len(x), DAY))
    scorer = Volatility(np.array([True, False]), 1)
    state = scorer.initial(2 * n)
    scorer.run(state, batch, np.empty((len(x), 2), np.float32))
    found = np.diff(batch.split.reshape(rows, n, 2)[..., 0], axis=0, prepend=0.0)
    return found.T, state[USUAL_VOLUME].reshape(n, 2)[:, 1]


def share_at_event(make, ratio, bars):
    price, volume = walks(bars, SERIES, 1)
    make(price, volume, ratio)
    return float((found_splits(price, volume)[0][:, EVENT] != 0).mean())


@pytest.mark.parametrize(("bars", "least"), [(DAILY, 0.75), (MINUTES, 0.78)])
@pytest.mark.parametrize("ratio", [2.0, 3.0, 10.0, 20.0, 0.5, 0.1])
def test_splits_are_found(ratio, bars, least):
    assert share_at_event(split, ratio, bars) > least


@pytest.mark.parametrize("ratio", [2.0, 4.0, 10.0, 0.1])
def test_a_wrong_price_and_a_fall_are_no_splits(ratio):
    assert share_at_event(wrong_price, ratio, DAILY) < 0.25
    assert share_at_event(fall, ratio, DAILY) < 0.25


@pytest.mark.parametrize("ratio", [100.0, 0.01])
@pytest.mark.parametrize("make", [split, wrong_price])
def test_a_hundredth_of_a_price_is_no_split(make, ratio):
    assert share_at_event(make, ratio, MINUTES) == 0


@pytest.mark.parametrize("bars", [DAILY, MINUTES, "daily, 2 %"])
def test_ordinary_moves_are_no_splits(bars):
    assert ordinary_splits(bars, 20) < 0.5  # per 10,000 rows


def test_one_odd_volume_before_a_split_does_not_hide_it():
    price, volume = walks(MINUTES, SERIES, 1)
    split(price, volume, 2.0)
    as_usual = found_splits(price, volume)[0][:, EVENT] != 0
    volume[:, EVENT - 1] *= 5
    with_odd = found_splits(price, volume)[0][:, EVENT] != 0
    assert (as_usual == with_odd).mean() > 0.8


def test_the_usual_volume_follows_a_split_at_once():
    price, volume = walks(MINUTES, SERIES, 1)
    split(price, volume, 10.0)
    price[:, EVENT + 3 :] /= 4
    volume[:, EVENT + 3 :] *= 4
    found, _ = found_splits(price, volume)
    assert ((found[:, EVENT] != 0) & (found[:, EVENT + 3] != 0)).mean() > 0.8


def test_the_open_after_a_night_may_move_and_split():
    price, volume = walks(MINUTES, SERIES, 1)
    night = np.exp(np.random.default_rng(5).normal(0, 0.01, (SERIES, 1)))
    price[:, EVENT:] *= night
    split(price, volume, 2.0)
    assert (found_splits(price, volume, missed=1_050)[0][:, EVENT] != 0).mean() > 0.8
    assert (found_splits(price, volume)[0][:, EVENT] != 0).mean() < 0.3


@pytest.mark.parametrize("key", json.loads(STORED["versions"].tobytes()))
def test_stored_states_without_a_usual_volume_go_on(key):
    """Written by commit aa3834ea after 300 rows of one series."""
    tier, decision = key.split()
    spec = DetectorSpec(tier=tier, preset="stock", channels=("close", "volume"), decision=decision)
    detector = build(spec)
    stored = {
        name.removeprefix(f"{key}/"): STORED[name] for name in STORED.files if name.startswith(f"{key}/")
    }
    state = detector.convert_state(json.loads(STORED["versions"].tobytes())[key], stored)
    assert state is not None
    for name, array in stored.items():
        if name == "usual.head":  # whole numbers of it have moved
            continue
        if name == "market.moments":
            array = np.insert(array, 4, 0.0, axis=-1)
        np.testing.assert_array_equal(state[name], array)
    np.testing.assert_array_equal(state[USUAL_VOLUME], stored["market.moments"][..., 1].astype(np.float32))
    price, volume = walks(DAILY, 1, 4)
    price[0, EVENT:] *= price[0, EVENT - 1] / price[0, EVENT]
    volume[0, EVENT] = np.median(volume)
    split(price, volume, 4.0)
    values = np.stack([price[0], volume[0]], axis=-1)
    given = contract.make_points(np.zeros(200, np.int32), values[300:], np.arange(300, 500))
    found = contract.run_batches(detector, given, state=state)
    if decision == "usual_range":  # the other one also judges the level of the volume
        assert not found.flag[EVENT - 300]
