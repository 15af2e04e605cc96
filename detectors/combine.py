"""Many surprises → one: groups of tracks are summed, scaled, and the largest group speaks for the lane.

Calibrated tracks of one series are far from independent, so a sum is not itself a surprise: ``scale`` brings each group back to about
−log10 of a tail probability, chosen on half of the open series (``docs/accuracy.md``). Three kinds of evidence:

    form    averaged forecast errors and distances to past windows: unbounded, so that it ranks
    event   never seen values, levels and shapes: trusted less where the series is predictable, because there forms decide
    point   one residual alone: it may speak only once its tail is known from tens of thousands of rows
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.kernel import kernel
from detectors.lanes import Floats

KNEE = 4.0  # a surprise of one in ten thousand; above it a group's ``slope`` applies
SCALE, CAP, SLOPE, PREDICTABLE, LEAST, AFTER, REPEATS = range(7)


@dataclass(frozen=True, slots=True)
class Group:
    """``scale`` · Σ weight · min(surprise, ``cap``), bent to ``slope`` above ``KNEE``; silent for the first ``after`` rows of a lane.

    Where the usual one-step error is below ``predictable`` scales of the series, the group counts in proportion, but never below ``least``.
    With ``repeats`` its alarms are not held back by an earlier one: each point is an event of its own.
    """

    tracks: tuple[tuple[str, float], ...]
    scale: float
    quantile: float = 0.99  # where the exponential tail of its tracks begins
    cap: float = 10.0
    slope: float = 1.0
    predictable: float = 0.0
    least: float = 1.0
    after: float = 0.0
    repeats: bool = False


class Combiner:
    """``columns`` names the tracks to calibrate, with the quantile of each; a track of two groups with two quantiles has two columns.

    ``band`` names columns that no group needs, to be calibrated all the same.
    """

    def __init__(self, groups: tuple[Group, ...], band: tuple[tuple[str, float], ...] = ()) -> None:
        self.columns = tuple(dict.fromkeys([(name, group.quantile) for group in groups for name, _ in group.tracks] + list(band)))
        self.weights = np.zeros((len(groups), len(self.columns)), np.float32)
        for g, group in enumerate(groups):
            for name, weight in group.tracks:
                self.weights[g, self.columns.index((name, group.quantile))] = weight
        self.rules = np.array([(g.scale, g.cap, g.slope, g.predictable, g.least, g.after, g.repeats) for g in groups], np.float32)

    def run(self, surprises: Floats, error: Floats, rows: Floats) -> NDArray[np.float32]:
        """``surprises`` (M, columns), usual ``error`` in scales (M,) and ``rows`` seen of the lane (M,) → surprise (M, 2): of all, of what repeats."""
        out = np.zeros((len(surprises), 2), np.float32)
        _combine(self.weights, self.rules, surprises, error, rows, out)
        return out


@kernel
def _combine(weights, rules, surprises, error, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(out)):
        for g in range(len(weights)):
            rule = rules[g]
            if rows[i] < rule[AFTER]:
                continue
            total = np.float32(0)
            for k in range(surprises.shape[1]):
                total += weights[g, k] * min(surprises[i, k], rule[CAP])
            total *= rule[SCALE]
            if error[i] < rule[PREDICTABLE]:
                total *= max(error[i] / rule[PREDICTABLE], rule[LEAST])
            if total > KNEE:
                total = np.float32(KNEE) + (total - np.float32(KNEE)) * rule[SLOPE]
            out[i, 0] = max(out[i, 0], total)
            if rule[REPEATS] > 0:
                out[i, 1] = max(out[i, 1], total)
