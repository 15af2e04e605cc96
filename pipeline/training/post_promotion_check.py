"""The post-promotion check: a new champion compared with its predecessor.

    counts = VerdictCounts()
    counts.add(decades, flag, seconds, alarms)       # of the verdicts of a span
    compare_with_predecessor(before, after)          # CheckVerdict(roll_back=False, reason="…")

The functions are pure. The check keeps the champion until it has enough verdicts of both models. It only
finds harm: the evidence card has shown before the promotion that the model is better.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

DECADE_EDGES: Final = np.r_[np.arange(0.0, 5.01, 0.25), np.inf]  # of the stated probability
MIN_POINTS: Final = 2_000  # of each model
# Two score distributions with a larger population stability index differ (Siddiqi 2006).
MAX_STABILITY_INDEX: Final = 0.25
MAX_CALIBRATION_RATIO: Final = 2.0  # of the calibration errors
MAX_ALARM_RATIO: Final = 3.0  # of the alarm rates
SIGNIFICANCE: Final = 1e-3  # of the test on the alarm rates
MAX_TIME_RATIO: Final = 2.0  # of the CPU time per point


@dataclass(slots=True)
class VerdictCounts:
    """Counts of the verdicts of a span, of bounded size.

    histogram  points by the decades of their stated probability
    seconds    time that the detector took in the engine
    """

    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(DECADE_EDGES) - 1, np.int64))
    points: int = 0
    flagged: int = 0
    alarms: int = 0
    seconds: float = 0.0

    def add(self, decades: NDArray[Any], flag: NDArray[np.bool_], seconds: float, alarms: int) -> None:
        """Add verdicts, ``alarms`` of which open an anomaly.

        Args:
            decades: −log10 of the stated probabilities (N,); NaN where unknown.
            flag: flagged points (N,).
            seconds: time that the detector took.
            alarms: number of anomalies that these verdicts open.
        """
        known = decades[np.isfinite(decades)]
        self.histogram += np.histogram(np.clip(known, 0.0, None), DECADE_EDGES)[0]
        self.points += len(decades)
        self.flagged += int(flag.sum())
        self.alarms += alarms
        self.seconds += seconds

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON."""
        return {
            "histogram": self.histogram.tolist(),
            **{name: getattr(self, name) for name in ("points", "flagged", "alarms", "seconds")},
        }


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """The decision of the check, with the reason to roll back or the figures so far."""

    roll_back: bool
    reason: str


def compare_with_predecessor(before: VerdictCounts, after: VerdictCounts) -> CheckVerdict:
    """Decide whether the champion of ``after`` stays or that of ``before`` returns."""
    if min(before.points, after.points) < MIN_POINTS:
        return CheckVerdict(
            False,
            f"too few points: {after.points} points since the promotion and {before.points} "
            f"before it, {MIN_POINTS} are needed of each",
        )
    index, off_before, off_after = (
        stability_index(before.histogram, after.histogram),
        _calibration_error(before.histogram),
        _calibration_error(after.histogram),
    )
    if index > MAX_STABILITY_INDEX and off_after > MAX_CALIBRATION_RATIO * off_before:
        return CheckVerdict(
            True,
            f"its scores are not calibrated: stability index {index:.2f}, calibration error "
            f"{off_after:.2f} decades, {off_before:.2f} before",
        )
    if _more_alarms(before, after):
        rates = [1000 * one.alarms / one.points for one in (before, after)]
        return CheckVerdict(
            True, f"it raises {rates[1]:.2f} alarms per thousand points, {rates[0]:.2f} before"
        )
    costs = [1e6 * one.seconds / one.points for one in (before, after)]
    if costs[0] > 0 and costs[1] > MAX_TIME_RATIO * costs[0]:
        return CheckVerdict(True, f"it takes {costs[1]:.1f} µs per point, {costs[0]:.1f} before")
    return CheckVerdict(
        False,
        f"{after.points} points: stability index {index:.2f}, {after.alarms} alarms, "
        f"{costs[1]:.1f} µs per point",
    )


def stability_index(before: NDArray[np.int64], after: NDArray[np.int64]) -> float:
    """Return the population stability index Σ (a − b) ln (a / b) of two histograms."""
    a, b = ((one + 0.5) / (one + 0.5).sum() for one in (after.astype(float), before.astype(float)))
    return float(((a - b) * np.log(a / b)).sum())


def _calibration_error(histogram: NDArray[np.int64]) -> float:
    """Return the harmful miscalibration of a histogram, in decades, at least 0.1.

    It is the mean distance between the observed and the nominal share of points whose decades exceed 1,
    2 and 3. At 2 and 3 only an excess counts: a better model's errors are compared with the tail that its
    predecessor left, until that has faded. At 1 only a deficit counts, the sign of a model that detects
    nothing. An excess there is normal for some 250 rows after a promotion, while each series' readout
    learns the hidden state of the new model.
    """
    total = max(1, int(histogram.sum()))
    more = [
        float(np.log10((histogram[DECADE_EDGES[:-1] >= level].sum() + 0.5) / total)) + level
        for level in (1, 2, 3)
    ]
    return max(0.1, (max(-more[0], 0.0) + max(more[1], 0.0) + max(more[2], 0.0)) / 3)


def _more_alarms(before: VerdictCounts, after: VerdictCounts) -> bool:
    """Test whether the alarm rate rose by more than ``MAX_ALARM_RATIO``.

    One-sided conditional test of two Poisson rates (Przyborowski & Wilenski 1940).
    """
    total = before.alarms + after.alarms
    if not after.alarms:
        return False
    share = MAX_ALARM_RATIO * after.points / (MAX_ALARM_RATIO * after.points + before.points)
    return bool(binomtest(after.alarms, total, share, alternative="greater").pvalue < SIGNIFICANCE)
