"""Values without splits: what is usual for prices and volumes goes on after one."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from benchmarks.stock_splits import EVENT, ROWS, split, walks
from detectors import DetectorSpec, build, contract
from detectors.base import Verdicts
from detectors.stages.usual_range.lane import COL_LAST_STEP

DAY = 86_400_000_000_000
SEEDS, RATIOS = range(4), (2.0, 10.0, 0.1)
STORED = np.load(Path(__file__).with_name("golden") / "state_6_usual_volume.npz")
KEYS = [f"{tier} {decision}" for tier in ("light", "standard") for decision in ("usual_range", "surprise")]


def detector_of(key: str):
    tier, decision = key.split()
    return build(DetectorSpec(tier=tier, preset="stock", channels=("close", "volume"), decision=decision))


def points(prices: np.ndarray, volumes: np.ndarray, first: int = 0):
    """Return daily bars of the series (S, ROWS), side by side in time."""
    n, rows = prices.shape
    values = np.stack([prices, volumes], axis=-1).transpose(1, 0, 2).reshape(-1, 2)
    day = np.repeat(np.arange(first, first + rows), n)
    given = contract.make_points(np.tile(np.arange(n, dtype=np.int32), rows), values, day)
    given.time, given.every = contract.START_NS + day * DAY, np.full(len(day), DAY)
    return given


def bars(ratio: float = 1.0, seeds=SEEDS):
    """Return prices and volumes of series that are split at ``EVENT``, where the row is an ordinary one."""
    parts = [walks("daily, 1 %", 1, seed) for seed in seeds]
    price, volume = (np.concatenate(one) for one in zip(*parts, strict=True))
    price[:, EVENT:] *= price[:, [EVENT - 1]] / price[:, [EVENT]]
    volume[:, EVENT] = np.median(volume, axis=1)
    split(price, volume, ratio)
    return price, volume


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("key", KEYS)
def test_verdicts_after_a_split_are_those_of_today_s_shares(key, ratio):
    detector = detector_of(key)
    plain = contract.run_batches(detector, points(*bars()))
    found = contract.run_batches(detector, points(*bars(ratio)))
    np.testing.assert_array_equal(found.flag, plain.flag)
    np.testing.assert_allclose(found.ratio, plain.ratio, rtol=0.01, atol=0.01)
    after = slice(len(SEEDS) * EVENT, None)
    shares = np.array([1 / ratio, ratio])
    for name in ("expected", "lower", "upper"):
        np.testing.assert_allclose(
            getattr(found, name)[after], getattr(plain, name)[after] * shares, rtol=0.01
        )


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("tier", ["light", "standard"])
def test_a_volume_is_judged_by_its_range_in_new_shares(tier, ratio):
    price, volume = bars(ratio)
    volume[:, EVENT + 40] *= 20
    found = contract.run_batches(detector_of(f"{tier} usual_range"), points(price, volume))
    flag = found.flag.reshape(ROWS, -1)
    assert flag[EVENT + 40].all()
    rows = (EVENT + 40) * len(SEEDS) + np.arange(len(SEEDS))
    np.testing.assert_array_equal(found.channel[rows], 1)
    np.testing.assert_allclose(found.observed[rows], volume[:, EVENT + 40], rtol=1e-6)
    usual = np.median(volume[:, EVENT:], axis=1)
    assert (found.usual_low[rows] < usual).all()
    assert (usual < found.usual_high[rows]).all()
    assert (found.usual_high[rows] < 6 * usual).all()


def test_a_volume_that_is_missing_on_the_day_of_the_split_follows_it():
    price, volume = bars(10.0)
    volume[:, EVENT] = 0
    found = contract.run_batches(detector_of("light usual_range"), points(price, volume))
    plain = contract.run_batches(detector_of("light usual_range"), points(*bars()))
    assert found.flag.sum() <= plain.flag.sum() + 1


@pytest.mark.parametrize("key", KEYS)
def test_a_split_does_not_depend_on_the_batches(key):
    price, volume = bars(4.0)
    volume[1, EVENT + 3] *= 30
    given, detector = points(price, volume), detector_of(key)
    whole = contract.run_batches(detector, given)
    around = EVENT * len(SEEDS)
    rows_alone = tuple(range(around - 40, around + 40))
    contract.require_equal(whole, contract.run_batches(detector, given, rows_alone), "row by row")
    for series in range(len(SEEDS)):
        rows = given.slot == series
        alone = contract.select_rows(given, rows)
        alone.slot = np.zeros(len(alone), np.int32)
        of_series = Verdicts(*(getattr(whole, one.name)[rows] for one in fields(Verdicts)))
        contract.require_equal(of_series, contract.run_batches(detector, alone), "alone")


@pytest.mark.parametrize("key", KEYS)
def test_stored_states_without_splits_go_on(key):
    """Written by commit cb162c34 after 300 rows of one series."""
    detector = detector_of(key)
    stored = {
        name.removeprefix(f"{key}/"): STORED[name] for name in STORED.files if name.startswith(f"{key}/")
    }
    state = detector.convert_state(json.loads(STORED["versions"].tobytes())[key], stored)
    assert state is not None
    price, volume = bars(4.0, [4])
    fresh = detector.initial(1)
    contract.run_batches(detector, points(price[:, :300], volume[:, :300]), state=fresh)
    if "usual.head" in fresh:
        fresh["usual.head"][..., COL_LAST_STEP] = state["usual.head"][..., COL_LAST_STEP]  # of later versions
    for name, array in fresh.items():  # floats of another processor differ in the last bits
        np.testing.assert_allclose(state[name], array, rtol=1e-5, err_msg=name)
    rest = points(price[:, 300:], volume[:, 300:], 300)
    found, right = (contract.run_batches(detector, rest, state=one) for one in (state, fresh))
    contract.require_equal(right, found, "a stored state", tolerance=1e-4)


@pytest.mark.parametrize("tier", ["light", "standard"])
def test_the_decision_by_usual_ranges_keeps_the_splits_of_the_other_one(tier):
    price, volume = bars(4.0)
    before, after = detector_of(f"{tier} surprise"), detector_of(f"{tier} usual_range")
    state = before.initial(len(SEEDS))
    contract.run_batches(before, points(price, volume), state=state)
    kept = after.convert_state(before.state_version, state)
    assert kept is not None
    np.testing.assert_array_equal(kept["market.moments"], state["market.moments"])
