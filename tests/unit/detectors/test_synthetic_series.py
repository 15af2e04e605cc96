"""The generator is seeded, varied and as described."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.training import synthetic_series


def test_the_same_seed_gives_the_same_series() -> None:
    np.testing.assert_array_equal(synthetic_series.batch(3, 20, 200), synthetic_series.batch(3, 20, 200))
    assert not np.array_equal(
        synthetic_series.batch(3, 20, 200), synthetic_series.batch(4, 20, 200), equal_nan=True
    )


def test_a_row_does_not_depend_on_how_many_there_are() -> None:
    np.testing.assert_array_equal(
        synthetic_series.batch((3, 1), 5, 300), synthetic_series.batch((3, 1), 12, 300)[:5]
    )


def test_shares_are_those_of_the_families() -> None:
    assert sum(synthetic_series.SHARES.values()) == pytest.approx(1.0)
    assert synthetic_series.SHARES["seasonal"] == 0.62
    assert synthetic_series.SHARES.keys() == synthetic_series.FAMILIES.keys()
    assert len(synthetic_series.WAVES) == 7


@pytest.mark.parametrize("family", synthetic_series.SHARES)
def test_every_family_is_finite_and_moves(family: str) -> None:
    rng = np.random.default_rng(11)
    moving = 0
    for _ in range(40):
        x = synthetic_series.of_family(family, rng, 400)
        assert x.shape == (400,)
        assert not np.isinf(x).any()
        moving += np.nanstd(x) > 0
    assert moving > 35


@pytest.mark.parametrize("wave", synthetic_series.WAVES)
def test_a_wave_repeats_with_its_period(wave) -> None:
    phase = np.arange(7 * 40 * 2) / 40  # two weeks of the wave with a weekend
    x = wave(np.random.default_rng(2), phase)
    np.testing.assert_allclose(x[: 7 * 40], x[7 * 40 :], atol=1e-6)
    assert x.std() > 0


def test_happenings_happen() -> None:
    x = synthetic_series.batch(5, 300, 500)
    assert 0.02 < np.isnan(x).any(1).mean() < 0.3  # missing points
    still = [(np.diff(row) == 0).mean() > 0.2 for row in x]
    assert 0.02 < np.mean(still) < 0.5  # rounded, stuck or intermittent


def test_spikes_stand_out_and_a_shift_stays() -> None:
    rng, calm = np.random.default_rng(0), np.zeros(2000)
    spiky = synthetic_series._spikes(rng, calm)
    assert 0 < (spiky != 0).mean() < 0.02
    shifted = synthetic_series._shift(rng, calm)
    assert len(np.unique(shifted)) == 2
    assert (np.diff(shifted) != 0).sum() == 1
