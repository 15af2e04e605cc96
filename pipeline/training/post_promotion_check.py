"""After a promotion: does the new champion behave? Pure functions over what was counted before and after; the
answer is keep, or roll back and why.

    window = Window()
    window.add(surprise, flag, seconds, alarms)                # of the verdicts of a span
    judge(before, after)                                       # Verdict(roll_back=False, reason="…")

It says nothing before it has seen enough, and it only looks for harm: that a model is better was the evidence
card's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

EDGES: Final = np.r_[np.arange(0.0, 5.01, 0.25), np.inf]  # decades of surprise
ENOUGH: Final = 2_000  # points, before and after
# population stability index above which two score distributions are not the same (Siddiqi 2006)
SHIFT: Final = 0.25
WRONG: Final = 2.0  # times as far from the uniform that calibrated scores have
ALARMS: Final = 3.0  # times the alarm rate
SURE: Final = 1e-3
SLOWER: Final = 2.0  # times the CPU time a point


@dataclass(slots=True)
class Window:
    """Counts of a span of verdicts; bounded, and addable.

    seconds: time that the detector took in the engine.
    """

    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(EDGES) - 1, np.int64))
    points: int = 0
    flagged: int = 0
    alarms: int = 0
    seconds: float = 0.0

    def add(self, surprise: NDArray[Any], flag: NDArray[np.bool_], seconds: float, alarms: int) -> None:
        """More verdicts, ``alarms`` of which open an anomaly."""
        known = surprise[np.isfinite(surprise)]
        self.histogram += np.histogram(np.clip(known, 0.0, None), EDGES)[0]
        self.points += len(surprise)
        self.flagged += int(flag.sum())
        self.alarms += alarms
        self.seconds += seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "histogram": self.histogram.tolist(),
            **{name: getattr(self, name) for name in ("points", "flagged", "alarms", "seconds")},
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """``roll_back`` with its reason, or keep with what was seen so far."""

    roll_back: bool
    reason: str


def judge(before: Window, after: Window) -> Verdict:
    """Keep the champion of ``after``, or go back to that of ``before``."""
    if min(before.points, after.points) < ENOUGH:
        return Verdict(
            False,
            f"too early to say: {after.points} points since the promotion, {before.points} before it, {ENOUGH} are needed",
        )
    index, off_before, off_after = (
        stability(before.histogram, after.histogram),
        _off(before.histogram),
        _off(after.histogram),
    )
    if index > SHIFT and off_after > WRONG * off_before:
        return Verdict(
            True,
            f"its scores are not calibrated: stability index {index:.2f}, {off_after:.2f} decades off, {off_before:.2f} before",
        )
    if _more_alarms(before, after):
        rates = [1000 * one.alarms / one.points for one in (before, after)]
        return Verdict(True, f"it raises {rates[1]:.2f} alarms a thousand points, {rates[0]:.2f} before")
    costs = [1e6 * one.seconds / one.points for one in (before, after)]
    if costs[0] > 0 and costs[1] > SLOWER * costs[0]:
        return Verdict(True, f"it takes {costs[1]:.1f} µs a point, {costs[0]:.1f} before")
    return Verdict(
        False,
        f"{after.points} points: stability index {index:.2f}, {after.alarms} alarms, {costs[1]:.1f} µs a point",
    )


def stability(before: NDArray[np.int64], after: NDArray[np.int64]) -> float:
    """Population stability index Σ (a − b) ln (a / b) of two histograms."""
    a, b = ((one + 0.5) / (one + 0.5).sum() for one in (after.astype(float), before.astype(float)))
    return float(((a - b) * np.log(a / b)).sum())


def _off(histogram: NDArray[np.int64]) -> float:
    """Mean distance in decades between how often surprise exceeds 1, 2 and 3, and how often it should, as far
    as it is harm; at least a tenth.

    At 2 and 3 only more than there should be is: a better model's errors are taken against the tail that the
    former one left, until that has faded. At 1 only fewer, a model that has gone blind: for some 250 rows
    after it took over there are more, while each series' readout learns its hidden state.
    """
    total = max(1, int(histogram.sum()))
    more = [
        float(np.log10((histogram[EDGES[:-1] >= level].sum() + 0.5) / total)) + level for level in (1, 2, 3)
    ]
    return max(0.1, (max(-more[0], 0.0) + max(more[1], 0.0) + max(more[2], 0.0)) / 3)


def _more_alarms(before: Window, after: Window) -> bool:
    """Surely more than ``ALARMS`` times the rate: a one-sided conditional test of two Poisson rates
    (Przyborowski & Wilenski 1940).
    """
    total = before.alarms + after.alarms
    if not after.alarms:
        return False
    share = ALARMS * after.points / (ALARMS * after.points + before.points)
    return bool(binomtest(after.alarms, total, share, alternative="greater").pvalue < SURE)
