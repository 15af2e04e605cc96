"""Many surprises → one: groups of tracks are summed, scaled, and the largest group speaks for the lane.

Calibrated tracks of one series are far from independent, so a sum is not itself a surprise: ``scale`` brings
each group back to about −log10 of a tail probability, chosen on half of the open series
(``docs/lab-notes/accuracy.md``). Three kinds of evidence:

    form    averaged forecast errors and distances to past windows: unbounded, so that it ranks; where a series is predictable they decide
    event   never seen values, levels and shapes, by what their sum usually is on this series
    point   one residual alone: it may speak only once its tail is known from tens of thousands of rows

Whatever they say, n rows cannot vouch for a rarity of much less than one in n: until ``CLAIM`` · log10(n + 1)
reaches the threshold, a surprise is at most that, and only static limits alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import ONE, kernel, log2, log10

# a surprise of one in ten thousand; above it a group's ``slope`` applies, below it its ``bend``
KNEE = np.float32(4)
CLAIM = np.float32(1.75)
ZERO, INFINITE = np.float32(0), np.float32(np.inf)
SCALE, CAP, SLOPE, BEND, PREDICTABLE, CERTAIN, LEAST, AFTER, REPEATS, OWN = range(10)
MEMORY = np.float32(10_000)  # rows of the usual sum
LARGEST = np.float32(8)  # a sum of more teaches no more than this
MEAN, VARIANCE = range(2)


class Known(Protocol):
    """What is known of M rows beside their surprises; see ``detectors.stages.forecaster_selection.Rungs``."""

    error: Floats
    off: Floats
    rows: Floats


@dataclass(frozen=True, slots=True)
class TrackGroup:
    """``scale`` · Σ weight · min(surprise, ``cap``), bent to ``slope`` above ``KNEE``; silent for the first
    ``after`` rows of a lane.

    Below ``KNEE`` it is KNEE · (u / KNEE)^``bend``: what is evidence of an event only once it is extreme says
    little about the rank of other rows. It counts ``certain`` times as much in a series without error, and
    goes back to once as the usual one-step error grows to ``predictable`` scales. Where the forecast is off
    by less than ``least`` usual errors it counts in proportion: on steady noise the rarest of a thousand
    errors is no event. With ``repeats`` its alarms are not held back by an earlier one: each point is an
    event of its own. With ``own`` the sum is divided by 1 + ``own`` · ``scale`` · (mean + deviation of the
    sum on this series so far) / KNEE: where tracks often speak together, as on a walk that leaves its range
    again and again, their sum says less (the idea of Brown's method for dependent p-values, 1975).
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


#: What a track is evidence of, in words of ``detectors.base.CAUSES``, by how its name begins.
SPEAKS_OF = {
    "surplus": "forecast", "residual": "forecast", "ahead": "forecast", "shape": "shape", "cycle": "shape", "novelty": "novelty", "range": "range",
    "seasonal": "seasonal_profile", "level": "level_shift", "shift": "level_shift", "change": "step", "stuck": "flatline", "frozen": "flatline", "return": "return", "burst": "volatility",
}  # fmt: skip


def evidence(track: str) -> str:
    """What ``track`` is evidence of; "none" where nobody said."""
    return next((word for start, word in SPEAKS_OF.items() if track.startswith(start)), "none")


class ScoreFusion:
    """``columns`` names the tracks to calibrate, with the quantile of each; a track of two groups with two
    quantiles has two columns.

    ``band`` names columns that no group needs, to be calibrated all the same. State: 8 bytes a channel slot for each
    group with ``own``.
    """

    def __init__(
        self, groups: tuple[TrackGroup, ...], threshold: float, band: tuple[tuple[str, float], ...] = ()
    ) -> None:
        self.columns = tuple(
            dict.fromkeys(
                [(name, group.quantile) for group in groups for name, _ in group.tracks] + list(band)
            )
        )
        self.threshold = np.float32(threshold)
        self.weights = np.zeros((len(groups), len(self.columns)), np.float32)
        for g, group in enumerate(groups):
            for name, weight in group.tracks:
                self.weights[g, self.columns.index((name, group.quantile))] += weight
        self.rules = np.array(
            [
                (
                    g.scale,
                    g.cap,
                    g.slope,
                    g.bend,
                    g.predictable,
                    g.certain,
                    g.least,
                    g.after,
                    g.repeats,
                    g.own,
                )
                for g in groups
            ],
            np.float32,
        )
        self.own = sum(group.own > 0 for group in groups)

    def initial(self, slots: int) -> State:
        return {"combiner.usual": np.zeros((slots, self.own, 2), np.float32)} if self.own else {}

    def run(
        self, state: State, slot: Ints, surprises: Floats, known: Known
    ) -> tuple[Floats, NDArray[np.uint8]]:
        """``surprises`` (M, columns) → surprise (M, 2): of all, of what repeats; and the column that led
        (M,)."""
        out, lead = np.zeros((len(surprises), 2), np.float32), np.zeros(len(surprises), np.uint8)
        usual = state["combiner.usual"] if self.own else np.zeros((0, 0, 2), np.float32)
        _combine(
            self.weights,
            self.rules,
            self.threshold,
            usual,
            slot,
            surprises,
            known.error,
            known.off,
            known.rows,
            out,
            lead,
        )
        return out, lead


@kernel
def _evidence(weights, rules, g, surprises, row, error):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """The sum of group ``g`` at a row, how much it counts there, and the column that says most of it."""
    total, most, lead = ZERO, -ONE, 0
    for k in range(weights.shape[1]):
        part = weights[g, k] * min(surprises[row, k], rules[g, CAP])
        total += part
        if part > most:
            most, lead = part, k
    certain = rules[g, CERTAIN]
    return total, certain + (ONE - certain) * min(error / rules[g, PREDICTABLE], ONE), lead


@kernel
def _by_usual(usual, row, own, total, share, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """By how much the usual sum divides this one, from which it then learns; a row that says nothing teaches
    nothing.
    """
    mean, variance = usual[row, own, MEAN], usual[row, own, VARIANCE]
    if total > 0:
        rate = ONE / min(rows + ONE, MEMORY)
        off = min(total, LARGEST) - mean
        usual[row, own, MEAN] = mean + rate * off
        usual[row, own, VARIANCE] = variance + rate * (off * off * (ONE - rate) - variance)
    return ONE + share * (mean + np.sqrt(variance)) / KNEE


@kernel
def _bent(total, slope, bend):  # type: ignore[no-untyped-def]  # noqa: ANN001
    if total > KNEE:
        return KNEE + (total - KNEE) * slope
    if bend == 1 or not total > 0:
        return total
    return KNEE * np.exp2(bend * log2(total / KNEE))


@kernel
def _combine(weights, rules, threshold, usual, slot, surprises, error, off, rows, out, lead):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(out)):
        most = CLAIM * log10(rows[i] + ONE)
        most = INFINITE if most >= threshold else most
        loudest, repeating, own = ZERO, ZERO, 0
        for g in range(len(weights)):
            if rows[i] < rules[g, AFTER]:
                continue
            total, certainty, column = _evidence(weights, rules, g, surprises, i, error[i])
            scale = rules[g, SCALE]
            if off[i] < rules[g, LEAST]:
                scale *= off[i] / rules[g, LEAST]
            if rules[g, OWN] > 0:
                scale /= _by_usual(usual, slot[i], own, total, rules[g, OWN] * scale, rows[i])
                own += 1
            total = _bent(total * scale * certainty, rules[g, SLOPE], rules[g, BEND])
            if total > loudest:
                loudest, lead[i] = total, column
            if rules[g, REPEATS] > 0:
                repeating = max(repeating, total)
        out[i, 0], out[i, 1] = min(loudest, most), min(repeating, most)
