"""Thresholds: what share of surprises passes, whatever their tail, and the least length of an alarm."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DetectorSpec, build, contract
from detectors.thresholds import THRESHOLDS
from detectors.thresholds.event_gate import EventGate

RATE = 1e-3
DRAWS = {
    "as claimed": lambda rng, n: rng.exponential(size=n) / np.log(10),
    "too bold": lambda rng, n: rng.exponential(size=n),
    "heavy": lambda rng, n: rng.pareto(4.0, size=n),
}


def passed(name, raw):
    threshold = THRESHOLDS[name](-np.log10(RATE))
    levels = threshold.run(threshold.initial(1), np.zeros(len(raw), np.int32), raw)
    return raw >= levels


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("name", ["quantile", "spot", "dspot", "conformal"])
def test_a_learned_level_lets_about_the_alarm_rate_through(name, draw):
    raw = DRAWS[draw](np.random.default_rng(0), 60_000).astype(np.float32)
    assert passed(name, raw)[10_000:].mean() == pytest.approx(RATE, abs=1.6 * RATE)


def test_the_static_level_believes_what_is_claimed():
    rng = np.random.default_rng(0)
    assert passed("static", DRAWS["as claimed"](rng, 60_000).astype(np.float32)).mean() == pytest.approx(
        RATE, rel=0.4
    )
    assert passed("static", DRAWS["too bold"](rng, 60_000).astype(np.float32)).mean() > 20 * RATE


def test_dspot_follows_a_level_that_drifts():
    raw = (DRAWS["as claimed"](np.random.default_rng(0), 40_000) + np.linspace(0, 8, 40_000)).astype(
        np.float32
    )
    assert passed("dspot", raw)[5_000:].mean() < 5 * RATE
    threshold = THRESHOLDS["dspot"](-np.log10(RATE))
    levels = threshold.run(threshold.initial(1), np.zeros(len(raw), np.int32), raw)
    assert levels[-1] - levels[10_000] == pytest.approx(6.0, abs=1.0)


def test_an_alarm_of_a_least_length():
    raw = np.array([5, 0, 5, 5, 5, 0], np.float32)
    event = EventGate(1e-4, rows=3)
    ones = np.ones(6, np.float32)
    _, flag = event.run(
        event.initial(1), np.zeros(6, np.int32), raw, raw * ones, ones.astype(bool), ones * 1e-4
    )
    assert flag.tolist() == [False, False, False, False, True, False]


@pytest.mark.parametrize("name", ["quantile", "spot", "dspot", "conformal"])
def test_a_detector_with_it_keeps_the_contract(name):
    contract.check(build(DetectorSpec(tier="light", threshold=name)))


def test_an_unknown_threshold_is_named():
    with pytest.raises(ValueError, match="dspot"):
        build(DetectorSpec(tier="light", threshold="gut feeling"))
