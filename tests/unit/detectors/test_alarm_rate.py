"""Under usual ranges the rank and the probability of a row do not depend on the alarm rate."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import build
from detectors.base import DetectorSpec, Points, State, Verdicts

MINUTE_NS = 60_000_000_000
ROWS = 8_000


def verdicts(
    preset: str, alarm_rate: float, decision: str = "usual_range", tier: str = "standard"
) -> tuple[State, Verdicts]:
    """Return state and verdicts of two noisy channels with spikes, a step and a standstill."""
    rng = np.random.default_rng(7)
    values = 50 + rng.standard_t(4, (ROWS, 2))
    values[1_500::97, 0] += np.linspace(1, 12, len(values[1_500::97]))
    values[2_000:2_100, 1] += 6
    values[2_400:2_450, 0] = 51
    spec = DetectorSpec(
        tier=tier, channels=("close", "volume"), preset=preset, alarm_rate=alarm_rate, decision=decision
    )
    slot, time = np.zeros(ROWS, np.int32), 1_760_000_000_000_000_000 + np.arange(ROWS) * 5 * MINUTE_NS
    every = np.full(ROWS, 5 * MINUTE_NS, np.int64)
    detector = build(spec)
    return detector.step(detector.initial(1), Points(slot, time, values, np.zeros(ROWS, np.int32), every))


@pytest.mark.parametrize("tier", ["light", "standard", "strong"])
@pytest.mark.parametrize("preset", ["sensor", "network", "stock"])
def test_rank_probability_and_what_is_learned_are_the_same_at_every_alarm_rate(
    preset: str, tier: str
) -> None:
    (state, usual), *others = (verdicts(preset, rate, tier=tier) for rate in (1e-4, 1e-6, 1e-2))
    for other_state, other in others:
        for name in ("surprise", "score", "rarity", "channel_rarity", "expected", "lower", "upper"):
            np.testing.assert_array_equal(getattr(other, name), getattr(usual, name), err_msg=name)
        for name in state.keys() - {"decision.run"}:
            np.testing.assert_array_equal(other_state[name], state[name], err_msg=name)
    assert (usual.surprise > 1).sum() > 100
    (_, rare), (_, often) = others
    assert rare.flag.sum() <= usual.flag.sum() < often.flag.sum()
    for one in (rare, usual, often):
        outside = one.ratio > 1
        assert ((one.observed < one.usual_low) | (one.observed > one.usual_high))[outside].all()


def test_verdicts_at_another_rate_do_not_depend_on_the_batches() -> None:
    spec = DetectorSpec(tier="standard", channels=("x",), alarm_rate=1e-2, decision="usual_range")
    rng = np.random.default_rng(3)
    values = rng.standard_t(3, (6_000, 1)) + 8
    at = np.arange(len(values))

    def points(rows: np.ndarray) -> Points:
        nothing = np.zeros(len(rows), np.int32)
        every = np.full(len(rows), 5 * MINUTE_NS, np.int64)
        return Points(nothing, rows * 5 * MINUTE_NS, values[rows], nothing, every)

    detector = build(spec)
    _, whole = detector.step(detector.initial(1), points(at))
    state, flags, ratios = detector.initial(1), [], []
    for part in np.array_split(at, 97):
        state, some = detector.step(state, points(part))
        flags.append(some.flag)
        ratios.append(some.ratio)
    np.testing.assert_array_equal(np.concatenate(ratios), whole.ratio)
    np.testing.assert_array_equal(np.concatenate(flags), whole.flag)
    assert whole.flag.sum() > 5


def test_the_alarm_rate_decides_by_surprise() -> None:
    (_, usual), (_, often) = (verdicts("sensor", rate, "surprise") for rate in (1e-4, 1e-2))
    assert usual.flag.sum() < often.flag.sum()
