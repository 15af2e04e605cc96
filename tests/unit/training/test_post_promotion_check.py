"""The guard after a promotion: harm is seen, harmlessness is left alone, and little data decides nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.training.post_promotion_check import (
    MIN_POINTS,
    VerdictCounts,
    compare_with_predecessor,
    stability_index,
)


def window(
    points: int, seed: int = 0, factor: float = 1.0, alarms: int = 0, cost: float = 5e-6
) -> VerdictCounts:
    """Scores whose surprise is ``factor`` times what calibrated ones have."""
    made = VerdictCounts()
    surprise = factor * -np.log10(np.random.default_rng(seed).random(points))
    for part in np.array_split(surprise, 5):
        made.add(part, np.zeros(len(part), bool), cost * len(part), 0)
    made.alarms = alarms
    return made


@pytest.mark.parametrize("seed", range(20))
def test_a_model_that_behaves_stays(seed: int) -> None:
    verdict = compare_with_predecessor(window(20_000, seed, alarms=3), window(5_000, seed + 100, alarms=2))
    assert not verdict.roll_back, verdict.reason


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (window(20_000, 1, factor=3.0), "not calibrated"),
        (window(20_000, 1, factor=0.2), "not calibrated"),
        (window(20_000, 1, alarms=80), "4.00 alarms per thousand points, 0.15 before"),
        (window(20_000, 1, cost=20e-6), "20.0 µs per point, 5.0 before"),
    ],
)
def test_harm_is_rolled_back_with_its_reason(after: VerdictCounts, words: str) -> None:
    verdict = compare_with_predecessor(window(20_000, alarms=3), after)
    assert verdict.roll_back
    assert words in verdict.reason


def test_better_calibrated_scores_are_no_harm() -> None:
    assert not compare_with_predecessor(window(20_000, factor=3.0), window(20_000, 1)).roll_back


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            [3053, 16549, 19501, 10706, 3505, 799, 188, 49, 28, 18, 17, 15, 19, 2, 3, 0, 1, 0, 2, 1, 0],
            [0, 75, 806, 984, 487, 172, 18, 2],  # fewer large ones, for the former tail is still there
        ),
        (
            [21, 2926, 7823, 6348, 2320, 490, 57, 14, 0, 1],
            # more small ones, while the readouts learn: rows 240 to 720 of forty series
            [0, 5, 680, 3479, 3503, 1498, 373, 53, 9],
        ),
    ],
)
def test_what_a_takeover_does_to_scores_is_no_harm(before: list[int], after: list[int]) -> None:
    """As they were counted on waves with noise after a version whose error was 4 % smaller had taken over: no
    alarm came of it.
    """
    verdict = compare_with_predecessor(
        *(
            VerdictCounts(np.array(some + [0] * (21 - len(some))), sum(some), seconds=5e-6 * sum(some))
            for some in (before, after)
        )
    )
    assert not verdict.roll_back, verdict.reason


def test_too_little_decides_nothing() -> None:
    verdict = compare_with_predecessor(window(20_000), window(MIN_POINTS - 1, factor=5.0, alarms=500))
    assert not verdict.roll_back
    assert "too few points" in verdict.reason


def test_one_alarm_more_is_luck() -> None:
    assert not compare_with_predecessor(window(20_000, alarms=0), window(2_000, 1, alarms=1)).roll_back


def test_a_window_counts_what_it_is_given() -> None:
    made = VerdictCounts()
    made.add(np.array([0.1, 2.6, np.nan, 9.0], np.float32), np.array([False, True, False, True]), 0.5, 1)
    assert (made.points, made.flagged, made.alarms, made.seconds) == (4, 2, 1, 0.5)
    assert made.histogram.sum() == 3
    assert made.histogram[-1] == 1
    assert json.loads(json.dumps(made.as_dict())) == made.as_dict()
    assert stability_index(made.histogram, made.histogram) == 0.0
