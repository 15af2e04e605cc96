"""The mean half width over all phases of the day, against the ranges of each phase."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.composite.tiers import USUAL_RANGE_SIZES
from detectors.stages.usual_range import limits, phase_profile
from detectors.stages.usual_range import quantities as q


def layout_of(tier: str) -> q.Layout:
    sizes = USUAL_RANGE_SIZES[tier]
    return q.make_layout(*(getattr(sizes, name) for name in list(sizes.__dataclass_fields__)[:3]))


def by_phase(
    given: tuple[NDArray, ...], layout: q.Layout, reach: int, floor: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the mean half widths (J, 3) by the range of each phase."""
    profile, quantum, visits, pool = given
    ranges = np.empty((len(layout.quantity), q.MODELS, 2), np.float32)
    halves, weights = [], []
    for cell in range(q.KINDS_OF_DAY * layout.bins):
        phase_profile.phase_ranges(profile, quantum, visits, pool, layout, cell, reach, ranges)
        half = 0.5 * (ranges[..., 1].astype(np.float64) - ranges[..., 0])
        halves.append(np.maximum(half, floor[np.array(layout.quantity)][:, None]))
        weights.append(np.where(np.isnan(half), 0, limits.DAYS_OF_KIND[cell // layout.bins]))
    weight = np.sum(weights, axis=0)
    total = np.nansum(np.array(halves) * np.array(weights), axis=0)
    return np.where(weight > 0, total / np.maximum(weight, 1), np.nan)


@pytest.mark.parametrize("share_known", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("reach", [-1, 0, 1])
@pytest.mark.parametrize("tier", ["light", "standard"])
def test_it_is_that_of_all_phases(tier: str, reach: int, share_known: float):
    rng, layout = np.random.default_rng(reach + 2), layout_of(tier)
    cells, used = q.KINDS_OF_DAY * layout.bins, len(layout.quantity)
    profile, visits = np.full((cells, layout.numbers), phase_profile.MISSING), np.zeros(cells, np.uint8)
    known = rng.random(cells) < share_known
    visits[known] = rng.integers(1, 16, known.sum()) << 4
    for j in range(used):
        low = rng.integers(-900, 500, cells)
        high, kept = low + rng.integers(0, 400, cells), known & (rng.random(cells) < 0.9)
        for end, values in enumerate((low, high)):
            if layout.number[j, end] >= 0:
                profile[kept, layout.number[j, end]] = values[kept]
    pool = np.sort(rng.normal(size=(used, 2)), axis=1).astype(np.float32)
    pool[-1] = np.nan
    floor = np.full(q.QUANTITIES, 0.05, np.float32)
    floor[q.Q_NOISE], floor[q.Q_STILL] = q.OCTAVES_NOISE, q.OCTAVES_STILL
    given = (profile, np.array([0.01, 0.02], np.float32), visits, pool)

    found, ranges = np.empty((used, 3), np.float32), np.empty((used, q.MODELS, 2), np.float32)
    limits._mean_half_widths(*given, layout, reach, floor, ranges, found)

    assert found == pytest.approx(by_phase(given, layout, reach, floor), rel=1e-5, nan_ok=True)
    assert not np.isnan(found[:-1, q.MODEL_POOLED]).any()
    assert np.isnan(found[:, 1:]).all() == (reach < 0 or share_known == 0)


def test_few_distances_are_sorted():
    rng = np.random.default_rng(0)
    for n in range(limits.BLOCKS + 1):
        distances = rng.integers(-128, 128, limits.BLOCKS).astype(np.int8)
        assert limits._sorted_distances(distances, n).tolist() == sorted(distances[:n].tolist())
