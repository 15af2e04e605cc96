"""Rarity and interval of a channel slot: shares that come true, claims that were seen, state of 14 bytes."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DetectorSpec, Limits, build, contract
from detectors.base import Points
from detectors.composite.tiers import USUAL_RANGE_SIZES
from detectors.stages.usual_range import own_tail
from detectors.stages.usual_range.quantities import QUANTITIES
from detectors.stages.usual_range.rarity_map import rarity_map_of, read_rarity_map

MINUTE_NS = contract.MINUTE_NS
MONDAY_NS = 1_704_067_200_000_000_000


def run_levels(evidence: np.ndarray, outside: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return rarities of rows with this evidence, and the state after them."""
    own = own_tail.initial_own(1, (1.0, 2.0, 3.0, 4.0), 3.0)["usual.own"][0]
    out = np.zeros(len(evidence))
    for row, one in enumerate(evidence.astype(np.float32)):
        out[row] = own_tail.rarity_of(own, one, row)
        own_tail.learn_evidence(own, one, row, bool(outside is not None and outside[row]))
    return out, own


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.0])
def test_the_share_of_rare_rows_is_the_stated_one(scale):
    """However wrong the pooled map is: its evidence is ``scale`` times the true one."""
    rng = np.random.default_rng(1)
    rarity, _ = run_levels(scale * -np.log10(rng.random(60_000)))
    for decade, most in ((1, 1.3), (2, 1.6), (3, 2.0)):
        share = (rarity[20_000:] >= decade).mean() * 10.0**decade
        assert 1 / most <= share <= most, decade


def test_nothing_is_rarer_than_the_rows_seen():
    rng = np.random.default_rng(2)
    rarity, _ = run_levels(-np.log10(rng.random(5_000)))
    assert (rarity <= np.log10(np.arange(1, 5_001)) + 1e-4).all()
    evidence = np.r_[rng.random(999), 7.0, 6.0]
    rarity, _ = run_levels(evidence)
    assert rarity[999] == pytest.approx(3.0, abs=1e-3), "rarer than anything in 1,000 rows"
    assert rarity[1_000] <= np.log10(1_001 / 2) + 1e-3, "more was seen before"


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.0])
def test_a_young_series_states_one_in_a_thousand_as_often_as_it_comes(scale):
    """The pooled level of one in 1,000 is .4 of the true one or twice it, and few rows have corrected it."""
    rng, rare = np.random.default_rng(9), 0
    for _ in range(60):
        rarity, _ = run_levels(scale * -np.log10(rng.random(2_000)))
        rare += int((rarity[1_000:] >= 3 - 1e-4).sum())
    assert 0.5 <= rare / 60 <= 2


def test_the_same_evidence_again_is_no_record():
    rarity, own = run_levels(np.r_[np.full(500, 0.7), 0.9003, 0.9003, 0.9003])
    assert rarity[500] == pytest.approx(np.log10(501), abs=1e-4)
    assert (rarity[501:] <= np.log10(503 / 2)).all()
    assert own[own_tail.COL_RUN] == 0


def test_records_on_end_are_one_event():
    rarity, own = run_levels(np.r_[np.full(500, 0.7), np.linspace(0.8, 0.99, 20)])
    assert rarity[500] == pytest.approx(np.log10(501), abs=1e-4)
    assert (rarity[501:] < 1.2).all()
    assert own[own_tail.COL_RUN] == own_tail.RECORD_INSIDE


def test_a_lasting_deviation_is_one_event_for_the_levels():
    rng = np.random.default_rng(3)
    quiet = -np.log10(rng.random(4_000))
    outside = np.zeros(5_000, bool)
    outside[4_000:] = True
    _, with_fault = run_levels(np.r_[quiet, np.full(1_000, 6.0)], outside)
    _, without = run_levels(quiet)
    most = own_tail.MAX_COUNTED_RUN * 0.43 / 2.0 * float(own_tail.STEPS)
    assert (with_fault[:4].astype(int) - without[:4] <= most).all()


def test_the_interval_holds_its_share():
    rng = np.random.default_rng(4)
    own = own_tail.initial_own(1, (1.0, 2.0, 3.0, 4.0), 8.0)["usual.own"][0]
    share, inside = np.float32(0.01), 0
    stride = own_tail.fall_stride(0.01)
    for row, size in enumerate(np.abs(rng.standard_t(3, 40_000)).astype(np.float32)):
        half = own_tail.half_width(own, np.float32(1))
        inside += row >= 10_000 and size <= half
        own_tail.learn_width(own, size, half, row, share, stride)
    assert inside / 30_000 == pytest.approx(0.99, abs=0.002)


def verdicts_of(values: np.ndarray, **spec):
    n = len(values)
    points = Points(
        np.zeros(n, np.int32),
        MONDAY_NS + np.arange(n, dtype=np.int64) * 10 * MINUTE_NS,
        values.reshape(n, -1),
        np.zeros(n, np.int32),
        np.full(n, 10 * MINUTE_NS, np.int64),
    )
    return contract.run_batches(build(DetectorSpec(decision="usual_range", **spec)), points)


@pytest.mark.parametrize("tier", ["light", "standard"])
def test_intervals_stay_within_what_is_possible(tier):
    rng = np.random.default_rng(5)
    load = np.clip(97 + 2 * rng.normal(size=3_000), 0, 100)
    counts = rng.poisson(0.5, 3_000).astype(float)
    found = verdicts_of(np.stack([load, counts], 1), tier=tier, channels=("load", "errors"))
    known = slice(500, None)
    assert np.nanmax(found.upper[known, 0]) <= 100
    assert np.nanmin(found.lower[known]) >= 0
    seen = np.array([load[:500].max() - load[:500].min(), counts.max()])
    assert (np.nanmax(found.upper - found.lower, axis=0) <= 3 * np.maximum(seen, counts.max())).all()


def test_the_interval_does_not_reach_over_a_static_limit():
    values = 50 + np.random.default_rng(6).normal(0, 3, 1_000)
    found = verdicts_of(values, tier="light", limits=(Limits(45, 55),))
    assert np.nanmin(found.lower) >= 45
    assert np.nanmax(found.upper) <= 55


def test_a_wider_interval_is_wider():
    values = 50 + np.random.default_rng(7).normal(0, 3, 2_000)
    half = [
        np.nanmean((one.upper - one.lower)[1_000:])
        for one in (verdicts_of(values, tier="light", interval=share) for share in (0.9, 0.99, 0.999))
    ]
    assert half[0] < half[1] < half[2]
    assert half[0] / half[1] == pytest.approx(1.645 / 2.576, rel=0.25)


def test_channels_are_corrected_for_their_number():
    values = np.random.default_rng(8).normal(size=(2_000, 4))
    found = verdicts_of(values, tier="light", channels=("a", "b", "c", "d"))
    assert found.channel_rarity.shape == (2_000, 4)
    expected = np.maximum(found.channel_rarity.max(axis=1) - np.log10(4), 0)
    np.testing.assert_allclose(found.rarity, expected, atol=1e-5)
    share = (found.rarity[1_000:] >= 1).mean()
    assert 0.05 <= share <= 0.2


@pytest.mark.parametrize("tier", sorted(USUAL_RANGE_SIZES))
def test_the_packaged_map_is_monotone(tier):
    found = read_rarity_map(tier)
    assert (np.diff(found.evidence, axis=1) > 0).all()
    assert (np.diff(found.levels) > 0).all()
    assert found.width > 1


def test_a_map_of_another_shape_is_refused():
    values = {"evidence": [[0.0, 1.0]] * QUANTITIES, "levels": [1, 2, 3, 4], "width": 3}
    with pytest.raises(ValueError, match="another shape"):
        rarity_map_of(values)
