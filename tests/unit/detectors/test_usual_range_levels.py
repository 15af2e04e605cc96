"""Changes of one size at any time, and jobs of one weekday, become usual."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DetectorSpec, build, contract
from detectors.base import Points
from detectors.stages.usual_range import residual_events

EVERY_NS = 10 * contract.MINUTE_NS
ROWS_PER_DAY = 144
MONDAY_NS = 1_704_067_200_000_000_000  # 2024-01-01, a Monday, 00:00 UTC


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


def tank_points(values: np.ndarray) -> Points:
    n = len(values)
    time = MONDAY_NS + np.arange(n, dtype=np.int64) * EVERY_NS
    slots = np.zeros(n, np.int32)
    return Points(slots, time, values.reshape(n, 1), slots, np.full(n, EVERY_NS, np.int64))


def flags_of(values: np.ndarray, **spec) -> np.ndarray:
    detector = build(DetectorSpec(tier="standard", decision="usual_range", **spec))
    return contract.run_batches(detector, tank_points(values)).flag


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
    rng = np.random.default_rng(weekday)
    rows = 42 * ROWS_PER_DAY
    hour, day = np.arange(rows) % ROWS_PER_DAY / 6, np.arange(rows) // ROWS_PER_DAY
    values = 100 + 20 * np.sin(hour / 12 * np.pi) + rng.normal(0, 2, rows)
    job = (day % 7 == weekday) & (hour >= 3) & (hour < 4)
    values[job] += 400
    weeks = np.flatnonzero(flags_of(values) & (day >= 7)) // (7 * ROWS_PER_DAY)
    assert set(weeks) <= {1, 2}
    assert 1 in weeks


def test_a_job_on_another_day_is_an_alarm():
    rng = np.random.default_rng(1)
    rows = 56 * ROWS_PER_DAY
    hour, day = np.arange(rows) % ROWS_PER_DAY / 6, np.arange(rows) // ROWS_PER_DAY
    values = 100 + 20 * np.sin(hour / 12 * np.pi) + rng.normal(0, 2, rows)
    values[(day % 7 == 1) & (hour >= 3) & (hour < 4)] += 400
    other = (day == 52) & (hour >= 3) & (hour < 4)  # a Thursday
    values[other] += 400
    flags = flags_of(values)
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
