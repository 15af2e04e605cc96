"""A scorer's raw error → surprise, −log10 of its tail probability on this series' own recent past.

The tail of the last ~20,000 errors lives in a decayed logarithmic histogram: ``bins`` counts, ``PER_OCTAVE``
to an octave, whose offset moves up (lowest bins merged) when a larger error comes; exact zeros are counted
apart, so that a start on zeros does not set the range.

The mass decays to ``MEMORY`` each time it is ``STRIDE`` beyond it: what is remembered differs by three rows
in a thousand from what a decay at every row would leave, and does not depend on how rows are batched. Beyond
the q-quantile the tail goes on as an exponential with the mean excess over it (Pickands–Balkema–de Haan with
shape 0), which stays linear in the error and so keeps the ranking of errors never seen before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import ONE, kernel, log2, log10

PER_OCTAVE = 4
#: In rows. A decay of every count at every row would cost as much as all the rest.
MEMORY, STRIDE = np.float32(20_000), np.float32(64)
LOG10_E = np.float32(0.4342945)
SMALLEST, LARGEST = np.float32(1e-30), np.float32(1e30)  # of an error: the edges of its bins are float32 too
MASS, ZEROS, LOWEST, APART = range(4)
ZERO, HALF, TWO = np.float32(0), np.float32(0.5), np.float32(2)
#: Geometric middles of all bins that can be, from the one of absolute index −``ORIGIN`` on.
ORIGIN = 512
MIDDLES = (2.0 ** ((np.arange(-ORIGIN, ORIGIN) + 0.5) / PER_OCTAVE)).astype(np.float32)
RATIO = np.float32(np.log(2) / PER_OCTAVE)
ENOUGH = 100  # rows before anything is put in quarantine


class TailCalibration:
    """Surprise of K tracks of errors. State: K · (bins + 4) · 4 bytes a channel slot.

    With ``quarantine`` errors of at least that surprise are not remembered, for at most as many rows on end
    as are.
    """

    def __init__(self, quantiles: tuple[float, ...], bins: int, quarantine: float = np.inf) -> None:
        self.tracks, self.bins, self.quantiles = len(quantiles), bins, np.array(quantiles, np.float32)
        self.quarantine = np.float32(quarantine)

    def initial(self, slots: int) -> State:
        return {
            "calibration.counts": np.zeros((slots, self.tracks, self.bins), np.float32),
            "calibration.head": np.zeros((slots, self.tracks, 4), np.float32),
        }

    def run(
        self, state: State, slot: Ints, errors: Floats, track: int, surprise: float
    ) -> tuple[Floats, NDArray[np.float32]]:
        """``errors`` (M, K) ≥ 0 (NaN: nothing to say) → surprises (M, K) ≥ 0 (0 where there is nothing to
        say).

        Second, for the band: the error of ``track`` that would have had ``surprise`` at each row (M,), NaN
        while too little is known.
        """
        out, band = np.zeros(errors.shape, np.float32), np.full(len(slot), np.nan, np.float32)
        counts, head = state["calibration.counts"], state["calibration.head"]
        rows = counts.reshape(-1, self.bins), head.reshape(-1, 4)
        _calibrate(
            *rows, slot, errors, self.quantiles, track, np.float32(surprise), self.quarantine, out, band
        )
        return out, band


@kernel
def _grown(x):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """2^(x / PER_OCTAVE) for |x| ≤ ½, by the series of e^y."""
    y = RATIO * x
    return ONE + y * (ONE + y * (HALF + y * (np.float32(1 / 6) + y * np.float32(1 / 24))))


@kernel
def _tail(counts, row, low, wanted):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """The error above which lies the mass ``wanted``, and the mean excess over it."""
    k = counts.shape[1] - 1
    above, moment, count = ZERO, ZERO, counts[row, k]
    while k > 0 and (count == 0 or above + count < wanted):
        above += count
        moment += count * MIDDLES[ORIGIN + low + k]
        k -= 1
        count = counts[row, k]
    share = min((wanted - above) / count, ONE) if count > 0 else ONE
    threshold = MIDDLES[ORIGIN + low + k] * _grown(HALF - share)
    taken = count * share
    moment += taken * MIDDLES[ORIGIN + low + k] * _grown(HALF - HALF * share)
    excess = moment / max(above + taken, np.float32(1e-6)) - threshold
    return threshold, max(excess, threshold * np.float32(0.02))


@kernel
def _above(counts, row, place):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Mass above ``place``, in bins from the lowest."""
    above = ZERO
    for k in range(counts.shape[1]):
        above += counts[row, k] * min(max(np.float32(k + 1) - place, ZERO), ONE)
    return above


@kernel
def _surprise(counts, head, row, quantile, error, place):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """−log10 P(E ≥ error) by the counts so far; exponential beyond the quantile."""
    mass, low = head[row, MASS], head[row, LOWEST]
    if mass == head[row, ZEROS]:
        return log10(mass + ONE)
    above, wanted = _above(counts, row, place - low), (ONE - quantile) * mass
    if above >= wanted or place < low:
        return log10((mass + ONE) / (above + ONE))
    threshold, excess = _tail(counts, row, int(low), wanted)
    beyond = LOG10_E * (error - threshold) / excess - log10(ONE - quantile + ONE / (mass + ONE))
    return min(beyond, TWO * log10(mass + ONE))  # m values cannot vouch for less than one in m²


@kernel
def _insert(counts, head, row, index):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Count an error of the bin with this absolute index."""
    bins, low = counts.shape[1], int(head[row, LOWEST])
    if head[row, MASS] == head[row, ZEROS]:
        low = index - bins * 3 // 4
        head[row, LOWEST] = low
    shift = index - low - bins + 1
    if shift > 0:
        merged = ZERO
        for k in range(min(shift + 1, bins)):
            merged += counts[row, k]
        for k in range(bins):
            counts[row, k] = counts[row, k + shift] if k + shift < bins else ZERO
        counts[row, 0] = merged
        low += shift
        head[row, LOWEST] = low
    counts[row, max(index - low, 0)] += ONE
    head[row, MASS] += ONE


@kernel
def _forget(counts, head, row):  # type: ignore[no-untyped-def]  # noqa: ANN001
    keep = MEMORY / head[row, MASS]
    for k in range(counts.shape[1]):
        counts[row, k] *= keep
    head[row, MASS] = MEMORY
    head[row, ZEROS] *= keep


@kernel
def _calibrate(counts, head, slot, errors, quantiles, track, wanted, quarantine, out, band):  # type: ignore[no-untyped-def]  # noqa: ANN001
    tracks = errors.shape[1]
    for i in range(len(slot)):
        for k in range(tracks):
            row, error = slot[i] * tracks + k, errors[i, k]
            mass = head[row, MASS]
            if k == track and mass >= 8:
                rare = ONE - quantiles[k]
                threshold, excess = _tail(counts, row, int(head[row, LOWEST]), rare * mass)
                band[i] = threshold + max(wanted + log10(rare + ONE / (mass + ONE)), ZERO) * excess / LOG10_E
            if np.isnan(error):
                continue
            positive = error >= SMALLEST
            error = min(error, LARGEST)
            place = log2(error) * np.float32(PER_OCTAVE) if positive else ZERO
            surprise = (
                _surprise(counts, head, row, quantiles[k], error, place) if positive and mass > 0 else ZERO
            )
            out[i, k] = surprise
            apart = surprise >= quarantine and mass > ENOUGH
            head[row, APART] = head[row, APART] + ONE if apart else ZERO
            if apart and head[row, APART] <= mass:
                continue
            if mass >= MEMORY + STRIDE:
                _forget(counts, head, row)
            if positive:
                _insert(counts, head, row, int(np.floor(place)))
            else:
                head[row, MASS] += ONE
                head[row, ZEROS] += ONE
