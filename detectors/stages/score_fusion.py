"""Score fusion: the surprises of all tracks become one per row.

The tracks of a group are summed and scaled, and the group with the largest result decides. Calibrated tracks
of one series are far from independent, so a sum is not itself a surprise. ``scale`` brings each group back
to about −log10 of a tail probability; it was chosen on half of the open series (``docs/lab-notes/accuracy.md``).
There are three kinds of groups:

    form    averaged forecast errors and distances to past windows: unbounded, so that they rank; they decide where a series is predictable
    event   unseen values, levels and shapes, relative to the usual sum of them on this series
    point   one residual alone: counts only once its tail is known from tens of thousands of rows

n rows cannot prove a rarity of much less than one in n. Until ``MAX_CLAIM_FACTOR`` · log10(n + 1) reaches the
threshold, a surprise is at most that, and only static limits alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import ONE, kernel, log2, log10

#: A surprise of one in ten thousand: above it the ``slope`` of a group applies, below it its ``bend``.
KNEE_SURPRISE = np.float32(4)
MAX_CLAIM_FACTOR = np.float32(1.75)
USUAL_SUM_ROWS = np.float32(10_000)
MAX_LEARNED_SUM = np.float32(8)  # a larger sum counts as this in the usual sum
ZERO, INFINITE = np.float32(0), np.float32(np.inf)
# Columns of the rules: the fields of ``TrackGroup`` after ``tracks`` and ``quantile``.
(
    RULE_SCALE,
    RULE_CAP,
    RULE_SLOPE,
    RULE_BEND,
    RULE_PREDICTABLE,
    RULE_CERTAIN,
    RULE_LEAST,
    RULE_AFTER,
    RULE_REPEATS,
    RULE_OWN,
) = range(10)
COL_MEAN, COL_VARIANCE = range(2)  # of "combiner.usual"


class ForecastErrors(Protocol):
    """Forecast errors of M rows.

    See ``detectors.stages.forecaster_selection.SelectedForecasts``.
    """

    @property
    def usual_error(self) -> Floats: ...

    @property
    def relative_error(self) -> Floats: ...

    @property
    def rows(self) -> Floats: ...


@dataclass(frozen=True, slots=True)
class TrackGroup:
    """Tracks that are summed, and the rules for their sum u.

    u = ``scale`` · Σ weight · min(surprise, ``cap``). Above ``KNEE_SURPRISE`` it grows with ``slope`` only.
    Below, it is KNEE · (u / KNEE)^``bend``: an event that is no evidence before it is extreme tells little
    about the rank of other rows.

    ``certain``, ``predictable``: u counts ``certain`` times as much on a series without forecast error, and
    once where the usual one-step error is ``predictable`` scales or more, linear between them.
    ``least``: where the forecast is off by less usual errors than this, u counts in proportion. On steady
    noise the rarest of a thousand errors is no event.
    ``after``: the group is silent for this many first rows of a channel slot.
    ``repeats``: an earlier alarm does not hold back this group's alarms; each point is an event of its own.
    ``own``: the sum is divided by 1 + ``own`` · ``scale`` · (mean + deviation of the sum on this series so
    far) / KNEE. Where tracks are often large together, as on a walk that leaves its range again and again,
    their sum is weaker evidence (the idea of Brown's method for dependent p-values, 1975).
    """

    tracks: tuple[tuple[str, float], ...]
    scale: float
    quantile: float = 0.99  # where the exponential tail of its tracks begins
    cap: float = 10.0
    slope: float = 1.0
    bend: float = 1.0
    predictable: float = 1.0
    certain: float = 1.0
    least: float = 0.0
    after: float = 0.0
    repeats: bool = False
    own: float = 0.0


#: Cause of a verdict, one of ``detectors.base.CAUSES``, by the beginning of the track's name.
CAUSE_BY_PREFIX = {
    "surplus": "forecast", "residual": "forecast", "ahead": "forecast", "shape": "shape", "cycle": "shape", "novelty": "novelty", "range": "range",
    "seasonal": "seasonal_profile", "level": "level_shift", "shift": "level_shift", "change": "step", "stuck": "flatline", "frozen": "flatline", "return": "return", "burst": "volatility",
}  # fmt: skip


def cause_of_track(track: str) -> str:
    """Return the cause that ``track`` is evidence of, "none" for an unknown track."""
    return next((cause for prefix, cause in CAUSE_BY_PREFIX.items() if track.startswith(prefix)), "none")


class ScoreFusion:
    """Fuses calibrated columns of surprises.

    ``columns`` names the tracks to calibrate, each with its quantile. A track of two groups with two
    quantiles has two columns. State: 8 bytes a channel slot for each group with ``own``.
    """

    def __init__(
        self, groups: tuple[TrackGroup, ...], threshold: float, band: tuple[tuple[str, float], ...] = ()
    ) -> None:
        """Configure the stage.

        Args:
            groups: The groups of tracks.
            threshold: Surprise from which a row may alarm.
            band: Further columns to calibrate, which only the band needs.
        """
        used = [(name, group.quantile) for group in groups for name, _ in group.tracks]
        self.columns = tuple(dict.fromkeys([*used, *band]))
        self.threshold = np.float32(threshold)
        self.weights = np.zeros((len(groups), len(self.columns)), np.float32)
        for g, group in enumerate(groups):
            for name, weight in group.tracks:
                self.weights[g, self.columns.index((name, group.quantile))] += weight
        self.rules = np.array([_rules(group) for group in groups], np.float32)
        self.own = sum(group.own > 0 for group in groups)

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` rows."""
        return {"combiner.usual": np.zeros((slots, self.own, 2), np.float32)} if self.own else {}

    def run(
        self, state: State, slot: Ints, surprises: Floats, errors: ForecastErrors
    ) -> tuple[Floats, NDArray[np.uint8]]:
        """Return fused surprises (M, 2) and the column with the largest part in each (M,).

        The first of the two is over all groups, the second over those with ``repeats``.

        Args:
            state: Arrays of ``initial``, advanced in place.
            slot: Row of the state (M,).
            surprises: Calibrated surprises (M, columns).
            errors: Forecast errors of the same rows.
        """
        out, lead = np.zeros((len(surprises), 2), np.float32), np.zeros(len(surprises), np.uint8)
        usual = state["combiner.usual"] if self.own else np.zeros((0, 0, 2), np.float32)
        columns = (slot, surprises, errors.usual_error, errors.relative_error, errors.rows)
        _fuse(self.weights, self.rules, self.threshold, usual, columns, out, lead)
        return out, lead


def _rules(group: TrackGroup) -> tuple[float, ...]:
    """Return one row of rules in the order of the ``RULE_*`` columns."""
    rules = (group.scale, group.cap, group.slope, group.bend, group.predictable, group.certain)
    return (*rules, group.least, group.after, group.repeats, group.own)


@kernel
def _weighted_sum(weights, rules, g, surprises, row, error):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return sum, certainty factor and leading column of group ``g`` at a row.

    The leading column has the largest part in the sum.
    """
    total, most, lead = ZERO, -ONE, 0
    for k in range(weights.shape[1]):
        part = weights[g, k] * min(surprises[row, k], rules[g, RULE_CAP])
        total += part
        if part > most:
            most, lead = part, k
    certain = rules[g, RULE_CERTAIN]
    return total, certain + (ONE - certain) * min(error / rules[g, RULE_PREDICTABLE], ONE), lead


@kernel
def _usual_divisor(usual, row, own, total, share, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the divisor of a sum by the usual sum, and update the usual sum.

    The usual sum learns from positive sums only.
    """
    mean, variance = usual[row, own, COL_MEAN], usual[row, own, COL_VARIANCE]
    if total > 0:
        rate = ONE / min(rows + ONE, USUAL_SUM_ROWS)
        off = min(total, MAX_LEARNED_SUM) - mean
        usual[row, own, COL_MEAN] = mean + rate * off
        usual[row, own, COL_VARIANCE] = variance + rate * (off * off * (ONE - rate) - variance)
    return ONE + share * (mean + np.sqrt(variance)) / KNEE_SURPRISE


@kernel
def _bent(total, slope, bend):  # type: ignore[no-untyped-def]  # noqa: ANN001
    if total > KNEE_SURPRISE:
        return KNEE_SURPRISE + (total - KNEE_SURPRISE) * slope
    if bend == 1 or not total > 0:
        return total
    return KNEE_SURPRISE * np.exp2(bend * log2(total / KNEE_SURPRISE))


@kernel
def _fuse(weights, rules, threshold, usual, columns, out, lead):  # type: ignore[no-untyped-def]  # noqa: ANN001
    slot, surprises, usual_error, relative_error, rows = columns
    for i in range(len(out)):
        most = MAX_CLAIM_FACTOR * log10(rows[i] + ONE)
        most = INFINITE if most >= threshold else most
        largest, repeating, own = ZERO, ZERO, 0
        for g in range(len(weights)):
            if rows[i] < rules[g, RULE_AFTER]:
                continue
            total, certainty, column = _weighted_sum(weights, rules, g, surprises, i, usual_error[i])
            scale = rules[g, RULE_SCALE]
            if relative_error[i] < rules[g, RULE_LEAST]:
                scale *= relative_error[i] / rules[g, RULE_LEAST]
            if rules[g, RULE_OWN] > 0:
                scale /= _usual_divisor(usual, slot[i], own, total, rules[g, RULE_OWN] * scale, rows[i])
                own += 1
            total = _bent(total * scale * certainty, rules[g, RULE_SLOPE], rules[g, RULE_BEND])
            if total > largest:
                largest, lead[i] = total, column
            if rules[g, RULE_REPEATS] > 0:
                repeating = max(repeating, total)
        out[i, 0], out[i, 1] = min(largest, most), min(repeating, most)
