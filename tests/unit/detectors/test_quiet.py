"""Few alarms on undisturbed series, also after 50,000 rows, when a single point may alarm alone."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tiers import SEED, undisturbed
from detectors import DetectorSpec, build, contract

ROWS, SERIES, BATCH = 60_000, 2, 20_000


@pytest.mark.parametrize("kind", ["noise", "walk", "season"])
@pytest.mark.parametrize("tier", ["light", "standard"])
def test_an_old_and_quiet_series_stays_quiet(tier, kind):
    values = undisturbed(np.random.default_rng(SEED), kind, SERIES, ROWS)
    given = contract.make_points(
        np.tile(np.arange(SERIES, dtype=np.int32), ROWS), values, np.repeat(np.arange(ROWS), SERIES)
    )
    found = contract.run_batches(
        build(DetectorSpec(tier=tier)), given, tuple(range(BATCH, len(given), BATCH))
    )
    assert 1e4 * found.flag[50_000 * SERIES :].mean() < 6
    assert found.flag[: 50_000 * SERIES].sum() < 80


@pytest.mark.parametrize("tier", ["light", "standard"])
def test_traffic_of_several_channels_stays_quiet(tier):
    """Low counts at night must not look like channels that left their steady state."""
    rng, rows = np.random.default_rng(SEED), 12_000
    flows = rng.poisson(6 * (1.2 + np.sin(2 * np.pi * np.arange(rows)[:, None] / 1_440)), (rows, SERIES))
    values = np.stack(
        [
            flows,
            flows * rng.lognormal(6, 0.8, (rows, SERIES)),
            np.minimum(flows, rng.poisson(4, (rows, SERIES))),
        ],
        axis=2,
    )
    given = contract.make_points(
        np.tile(np.arange(SERIES, dtype=np.int32), rows),
        values.reshape(-1, 3),
        np.repeat(np.arange(rows), SERIES),
    )
    found = contract.run_batches(
        build(DetectorSpec(tier=tier, preset="network", channels=("flows", "bytes", "peers"))), given
    )
    assert 1e4 * found.flag[2_000 * SERIES :].mean() < 4


@pytest.mark.parametrize("tier", ["light", "standard"])
def test_an_old_series_still_flags_a_distant_point(tier):
    values = undisturbed(np.random.default_rng(SEED), "noise", 1, ROWS)
    values[55_000] = 15.0
    given = contract.make_points(np.zeros(ROWS, np.int32), values, np.arange(ROWS))
    assert contract.run_batches(build(DetectorSpec(tier=tier)), given).flag[55_000]
