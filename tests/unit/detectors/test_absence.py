"""Absence: a peak or a trough that does not come within three hours."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.base import CAUSES, Verdicts
from tests.unit.detectors.test_usual_range import verdicts_of

DAYS, DAY_ROWS = 17, 144  # of ten minutes
LAST_DAY = slice((DAYS - 1) * DAY_ROWS, DAYS * DAY_ROWS)


def absences(verdicts: Verdicts) -> np.ndarray:
    """Return the rows of the last day (K,) that are flagged for an absence."""
    flagged = verdicts.flag & (verdicts.cause == CAUSES.index("absence"))
    return np.flatnonzero(flagged[LAST_DAY])


def nightly_job(seed: int = 0) -> np.ndarray:
    """Return a disk that is busy for twenty minutes between one and two each night."""
    rng = np.random.default_rng(seed)
    values = 20 + rng.normal(0, 1, DAYS * DAY_ROWS)
    for day in range(DAYS):
        begin = day * DAY_ROWS + 6 + int(rng.integers(0, 5))
        values[begin : begin + 2] += 200
    return values


@pytest.mark.parametrize("preset", ["sensor", "network"])
def test_a_job_that_does_not_come_is_an_absence(preset):
    values = nightly_job()
    night = values[LAST_DAY]
    night[night > 100] -= 200
    assert len(absences(verdicts_of(values, "standard", preset=preset)))


def test_a_channel_of_which_all_values_have_fallen_has_no_absence():
    rng = np.random.default_rng(1)
    since_water = np.arange(DAYS * DAY_ROWS) % 12 / 6  # hours; watered each second hour
    values = 48 - 3 * since_water + rng.normal(0, 0.1, len(since_water))
    values[LAST_DAY] -= np.minimum(np.arange(DAY_ROWS) / 12, 5)
    verdicts = verdicts_of(values, "standard")
    assert verdicts.flag[LAST_DAY].any()
    assert not len(absences(verdicts))


def test_a_channel_that_happens_not_to_be_quiet_for_hours_has_no_absence():
    rng = np.random.default_rng(0)
    busy = rng.random(DAYS * DAY_ROWS) < 0.7
    busy[LAST_DAY][40:90] = True
    values = 500 + busy * 4e4 * np.exp(rng.normal(0, 0.4, len(busy)))
    assert not len(absences(verdicts_of(values, "standard", preset="network")))
