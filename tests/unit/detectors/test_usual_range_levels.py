"""Changes of one size at any time, and jobs of one weekday, become usual."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.stages.usual_range import residual_events
from tests.unit.detectors.test_usual_range import ROWS_PER_DAY, verdicts_of


def filled_tank(rows: int, seed: int = 3) -> np.ndarray:
    """Return the level of a tank that is filled within a row whenever it is low."""
    rng = np.random.default_rng(seed)
    uses, noise = rng.uniform(0.05, 0.6, 2 * 2_880), rng.normal(0, 0.1, 2 * 2_880)
    level, fills, levels = 60.0, False, []
    for use in uses.tolist():
        fills = level < 30 or (fills and level < 90)
        level += (20 if fills else 0) - use
        levels.append(level)
    return np.round(np.array(levels) + noise, 2)[:rows]


def flags_of(values: np.ndarray) -> np.ndarray:
    return verdicts_of(values, "standard").flag


def jobs_at_night(days: int, seed: int, *dates: range | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return a daily wave with a job from 03:00 to 04:00 on some days, and the day of each row."""
    rows, rng = np.arange(days * ROWS_PER_DAY), np.random.default_rng(seed)
    hour, day = rows % ROWS_PER_DAY / 6, rows // ROWS_PER_DAY
    values = 100 + 20 * np.sin(hour / 12 * np.pi) + rng.normal(0, 2, len(rows))
    values[np.isin(day, np.concatenate(dates)) & (hour >= 3) & (hour < 4)] += 400
    return values, day


def memory_that_is_given_back(rows: int, seed: int) -> np.ndarray:
    """Return a saw-tooth: growth by load, and a fall of one size at any time of day."""
    rng = np.random.default_rng(seed)
    use, out = 320.0, []
    for grown, limit in zip(rng.uniform(1, 6, rows), rng.uniform(780, 800, rows), strict=True):
        use = 320.0 if use > limit else use + grown
        out.append(use)
    return np.array(out) + rng.normal(0, 2, rows)


@pytest.mark.parametrize("seed", range(3))
def test_a_change_of_the_usual_size_is_usual_at_any_time_of_day(seed):
    values = memory_that_is_given_back(70 * ROWS_PER_DAY, seed)
    assert flags_of(values)[40 * ROWS_PER_DAY :].sum() == 0


def test_a_larger_change_is_an_alarm():
    values = memory_that_is_given_back(70 * ROWS_PER_DAY, 0)
    row = 60 * ROWS_PER_DAY + 7
    values[row] = -900
    assert flags_of(values)[row]


@pytest.mark.parametrize("weekday", [1, 6])
def test_a_weekly_job_is_usual_in_the_fourth_week(weekday):
    values, day = jobs_at_night(42, weekday, range(weekday, 42, 7))
    weeks = np.flatnonzero(flags_of(values) & (day >= 7)) // (7 * ROWS_PER_DAY)
    assert set(weeks) <= {1, 2}
    assert 1 in weeks


def test_a_job_on_another_day_is_an_alarm():
    values, day = jobs_at_night(56, 1, range(1, 56, 7), (52,))
    flags, other = flags_of(values), day == 52  # a Thursday
    assert flags[other].any()
    assert flags[~other & (day >= 22)].sum() == 0


def test_sizes_are_compared_modulo_their_steps():
    events = np.zeros((residual_events.EVENTS, 3), np.int8)
    events[:, residual_events.EVENT_PHASE] = np.arange(residual_events.EVENTS) * 8
    for size in (1e-12, 0.3, 7.0, 1e9):
        events[:, residual_events.EVENT_SIZE] = residual_events.size_step(np.float32(size))
        assert residual_events.has_common_size(events, residual_events.EVENTS, np.float32(size * 1.05), False)
        assert not residual_events.has_common_size(
            events, residual_events.EVENTS, np.float32(size * 1.5), False
        )
        assert not residual_events.has_common_size(events, residual_events.EVENTS, np.float32(size), True)
