"""The relation of channels: what it says of rare values and at the end of a range."""

from __future__ import annotations

import numpy as np

from detectors.base import CAUSES
from tests.unit.detectors.test_usual_range import verdicts_of

DAY = 144
RATED_KW, RATED_WIND = 2_000.0, 12.0


def turbine(days: int = 35, storms: tuple[int, ...] = (), seed: int = 2) -> np.ndarray:
    """Return wind and power of a turbine by ten minutes (N, 2); a storm lasts for two days.

    A gale of some hours on the sixth day is all that was seen of such wind before.
    """
    rng = np.random.default_rng(seed)
    rows = days * DAY
    gusts = np.zeros(rows)
    for row in range(1, rows):
        gusts[row] = 0.98 * gusts[row - 1] + rng.normal(0, 0.05)
    wind = 6 * np.exp(gusts)
    for day, days_long in [(6, 0.25), *((storm, 2.0) for storm in storms)]:
        length = int(days_long * DAY)
        blows = 1 + 0.8 * np.sin(np.arange(length) / length * np.pi) ** 2
        wind[day * DAY : day * DAY + length] *= blows
    power = RATED_KW * np.clip((wind**3 - 27) / (RATED_WIND**3 - 27), 0, 1)
    return np.stack([wind + rng.normal(0, 0.1, rows), power + rng.normal(0, 8, rows)], axis=1)


def broken_relations(values: np.ndarray) -> np.ndarray:
    found = verdicts_of(values, "standard", channels=("wind", "kw"))
    return found.flag & (found.cause == CAUSES.index("relation"))


def test_rated_power_in_a_storm_breaks_the_relation_in_few_rows():
    rows = [broken_relations(turbine(storms=(22, 29), seed=seed))[14 * DAY :].sum() for seed in range(4)]
    assert sum(rows) <= 10  # of 2,304; 213 where more than the rated power is implied
    assert sorted(rows)[:3] == [0, 0, 0]


def test_too_little_power_for_the_wind_is_an_alarm_before_and_after_a_storm():
    for day in (20, 32):
        values = turbine(storms=(25,))
        fault = slice(day * DAY + 60, day * DAY + 110)
        values[fault, 1] *= 0.5
        assert broken_relations(values)[fault].any()


def test_a_value_beyond_its_range_is_an_alarm_beside_a_rare_input():
    rng, rows = np.random.default_rng(4), 30 * 288
    flows = rng.poisson(0.05, rows).astype(float)
    sent = np.where(flows > 0, np.round(flows * np.exp(rng.normal(9, 0.5, rows))), 0.0)
    fault = slice(24 * 288 + 100, 24 * 288 + 108)
    flows[fault], sent[fault] = 3, 6e8
    found = verdicts_of(
        np.stack([flows, sent], axis=1), "standard", preset="network", channels=("flows", "bytes")
    )
    assert found.flag[fault].any()
