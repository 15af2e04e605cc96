"""Many surprises → one: groups of tracks are summed, scaled, and the largest group speaks for the lane.

Calibrated tracks of one series are far from independent, so a sum is not itself a surprise: ``scale`` brings each group back to about
−log10 of a tail probability, chosen on half of the open series (``docs/accuracy.md``). Three kinds of evidence:

    form    averaged forecast errors and distances to past windows: unbounded, so that it ranks; where a series is predictable they decide
    event   never seen values, levels and shapes
    point   one residual alone: it may speak only once its tail is known from tens of thousands of rows

Whatever they say, n rows cannot vouch for a rarity of much less than one in n: until ``CLAIM`` · log10(n + 1) reaches the threshold, a surprise is
at most that, and only static limits alarm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.kernel import kernel
from detectors.lanes import Floats

KNEE = 4.0  # a surprise of one in ten thousand; above it a group's ``slope`` applies, below it its ``bend``
CLAIM = 1.75
SCALE, CAP, SLOPE, BEND, PREDICTABLE, CERTAIN, AFTER, REPEATS = range(8)


@dataclass(frozen=True, slots=True)
class Group:
    """``scale`` · Σ weight · min(surprise, ``cap``), bent to ``slope`` above ``KNEE``; silent for the first ``after`` rows of a lane.

    Below ``KNEE`` it is KNEE · (u / KNEE)^``bend``: what is evidence of an event only once it is extreme says little about the rank of other rows.
    It counts ``certain`` times as much in a series without error, and goes back to once as the usual one-step error grows to ``predictable`` scales.
    With ``repeats`` its alarms are not held back by an earlier one: each point is an event of its own.
    """

    tracks: tuple[tuple[str, float], ...]
    scale: float
    quantile: float = 0.99  # where the exponential tail of its tracks begins
    cap: float = 10.0
    slope: float = 1.0
    bend: float = 1.0
    predictable: float = 1.0
    certain: float = 1.0
    after: float = 0.0
    repeats: bool = False


#: What a track is evidence of, in words of ``detectors.base.EVIDENCE``, by how its name begins.
SPEAKS_OF = {
    "surplus": "forecast", "residual": "forecast", "ahead": "forecast", "shape": "shape", "novelty": "value", "range": "range",
    "seasonal": "season", "level": "level", "change": "step", "stuck": "stuck", "frozen": "stuck", "return": "return", "burst": "burst",
}  # fmt: skip


def evidence(track: str) -> str:
    """What ``track`` is evidence of; "none" where nobody said."""
    return next((word for start, word in SPEAKS_OF.items() if track.startswith(start)), "none")


class Combiner:
    """``columns`` names the tracks to calibrate, with the quantile of each; a track of two groups with two quantiles has two columns.

    ``band`` names columns that no group needs, to be calibrated all the same.
    """

    def __init__(self, groups: tuple[Group, ...], threshold: float, band: tuple[tuple[str, float], ...] = ()) -> None:
        self.columns = tuple(dict.fromkeys([(name, group.quantile) for group in groups for name, _ in group.tracks] + list(band)))
        self.threshold = np.float32(threshold)
        self.weights = np.zeros((len(groups), len(self.columns)), np.float32)
        for g, group in enumerate(groups):
            for name, weight in group.tracks:
                self.weights[g, self.columns.index((name, group.quantile))] += weight
        self.rules = np.array([(g.scale, g.cap, g.slope, g.bend, g.predictable, g.certain, g.after, g.repeats) for g in groups], np.float32)

    def run(self, surprises: Floats, error: Floats, rows: Floats) -> tuple[Floats, NDArray[np.uint8]]:
        """``surprises`` (M, columns), usual ``error`` in scales (M,) and ``rows`` seen of the lane (M,) → surprise (M, 2): of all, of what repeats;
        and the column that led (M,)."""
        out, lead = np.zeros((len(surprises), 2), np.float32), np.zeros(len(surprises), np.uint8)
        _combine(self.weights, self.rules, self.threshold, surprises, error, rows, out, lead)
        return out, lead


@kernel
def _evidence(weights, rule, surprises, error):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """What one group says, and the column that says most of it."""
    total, most, lead = np.float32(0), np.float32(-1), 0
    for k in range(len(surprises)):
        part = weights[k] * min(surprises[k], rule[CAP])
        total += part
        if part > most:
            most, lead = part, k
    total *= rule[SCALE]
    total *= rule[CERTAIN] + (1 - rule[CERTAIN]) * min(error / rule[PREDICTABLE], np.float32(1))
    if total > KNEE:
        total = np.float32(KNEE) + (total - np.float32(KNEE)) * rule[SLOPE]
    elif rule[BEND] != 1:
        total = np.float32(KNEE) * (total / np.float32(KNEE)) ** rule[BEND]
    return total, lead


@kernel
def _combine(weights, rules, threshold, surprises, error, rows, out, lead):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(out)):
        most = np.float32(CLAIM * np.log10(rows[i] + 1))
        most = np.float32(np.inf) if most >= threshold else most
        for g in range(len(weights)):
            if rows[i] < rules[g, AFTER]:
                continue
            total, column = _evidence(weights[g], rules[g], surprises[i], error[i])
            if total > out[i, 0]:
                out[i, 0], lead[i] = total, column
            if rules[g, REPEATS] > 0:
                out[i, 1] = max(out[i, 1], total)
        out[i, 0], out[i, 1] = min(out[i, 0], most), min(out[i, 1], most)
