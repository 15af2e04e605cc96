"""A scorer's raw error → surprise, −log10 of its tail probability on this series' own recent past.

The tail of the last ~20,000 errors lives in a decayed logarithmic histogram: ``bins`` counts, ``PER_OCTAVE`` to an octave, whose
offset moves up (lowest bins merged) when a larger error comes; exact zeros are counted apart, so that a start on zeros does not set
the range. Beyond the q-quantile the tail goes on as an exponential with the mean excess over it (Pickands–Balkema–de Haan with
shape 0), which stays linear in the error and so keeps the ranking of errors never seen before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.kernel import kernel
from detectors.lanes import Floats, Ints

PER_OCTAVE = 4
MEMORY = 20_000.0
LOG10_E = 0.4342945
SMALLEST, LARGEST = 1e-30, 1e30  # of an error: the edges of its bins are float32 too
MASS, ZEROS, LOWEST, APART = range(4)
ENOUGH = 100  # rows before anything is put in quarantine


class Calibration:
    """Surprise of K tracks of errors. State: K · (bins + 4) · 4 bytes a lane.

    With ``quarantine`` errors of at least that surprise are not remembered, for at most as many rows on end as are.
    """

    def __init__(self, quantiles: tuple[float, ...], bins: int, quarantine: float = np.inf) -> None:
        self.tracks, self.bins, self.quantiles = len(quantiles), bins, np.array(quantiles, np.float32)
        self.quarantine = np.float32(quarantine)

    def initial(self, lanes: int) -> State:
        return {
            "calibration.counts": np.zeros((lanes, self.tracks, self.bins), np.float32),
            "calibration.head": np.zeros((lanes, self.tracks, 4), np.float32),
        }

    def run(self, state: State, lane: Ints, errors: Floats, track: int, surprise: float) -> tuple[Floats, NDArray[np.float32]]:
        """``errors`` (M, K) ≥ 0 (NaN: nothing to say) → surprises (M, K) ≥ 0 (0 where there is nothing to say).

        Second, for the band: the error of ``track`` that would have had ``surprise`` at each row (M,), NaN while too little is known.
        """
        out, band = np.zeros(errors.shape, np.float32), np.full(len(lane), np.nan, np.float32)
        counts, head = state["calibration.counts"], state["calibration.head"]
        _calibrate(counts, head, lane, errors, self.quantiles, track, np.float32(surprise), self.quarantine, out, band)
        return out, band


@kernel
def _edge(index):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Lower edge of the bin with this absolute index."""
    return np.float32(2.0) ** np.float32(index / PER_OCTAVE)


@kernel
def _tail(counts, head, quantile):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Where the upper 1 − q of the mass begins: bin, place inside it, mass above that bin, error there, mean excess over it."""
    wanted = np.float32((1.0 - quantile) * head[MASS])
    low, k = head[LOWEST], len(counts) - 1
    above, moment = np.float32(0), np.float32(0)
    while k > 0 and (counts[k] == 0 or above + counts[k] < wanted):
        above += counts[k]
        moment += counts[k] * _edge(low + k + 0.5)
        k -= 1
    share = min((wanted - above) / counts[k], np.float32(1)) if counts[k] > 0 else np.float32(1)
    cut = k + 1 - share
    threshold = _edge(low + cut)
    taken = counts[k] * share
    moment += taken * _edge(low + 0.5 * (cut + k + 1))
    excess = moment / max(above + taken, np.float32(1e-6)) - threshold
    return k, cut, above, threshold, max(excess, threshold * np.float32(0.02))


@kernel
def _surprise(counts, head, quantile, tail, error):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """−log10 P(E ≥ error) by the counts so far; exponential beyond the quantile."""
    if not error > 0 or head[MASS] == 0:
        return np.float32(0)
    k, cut, above, threshold, excess = tail
    if head[MASS] == head[ZEROS]:
        return np.log10(head[MASS] + 1)
    place = np.log2(error) * PER_OCTAVE - head[LOWEST]
    if place >= cut:
        beyond = -np.log10(1 - quantile + 1 / (head[MASS] + 1)) + LOG10_E * (error - threshold) / excess
        return min(beyond, 2 * np.log10(head[MASS] + 1))  # m values cannot vouch for less than one in m²
    while k > place and k >= 0:
        above += counts[k]
        k -= 1
    if k >= 0:
        above += counts[k] * (k + 1 - max(place, np.float32(k)))
    return np.log10((head[MASS] + 1) / (above + 1))


@kernel
def _insert(counts, head, error):  # type: ignore[no-untyped-def]  # noqa: ANN001
    bins = len(counts)
    if head[MASS] >= MEMORY:
        keep = np.float32(1 - 1 / MEMORY)
        for k in range(bins):
            counts[k] *= keep
        head[MASS] *= keep
        head[ZEROS] *= keep
    first = head[MASS] == head[ZEROS]
    head[MASS] += 1
    if not error > 0:
        head[ZEROS] += 1
        return
    index = int(np.floor(np.log2(error) * PER_OCTAVE))
    if first:
        head[LOWEST] = index - bins * 3 // 4
    shift = index - int(head[LOWEST]) - bins + 1
    if shift > 0:
        merged = np.float32(0)
        for k in range(min(shift + 1, bins)):
            merged += counts[k]
        for k in range(bins):
            counts[k] = counts[k + shift] if k + shift < bins else 0.0
        counts[0] = merged
        head[LOWEST] += shift
    counts[max(index - int(head[LOWEST]), 0)] += 1


@kernel
def _calibrate(counts, head, lane, errors, quantiles, track, wanted, quarantine, out, band):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(lane)):
        for k in range(errors.shape[1]):
            error = min(errors[i, k], np.float32(LARGEST))
            error = np.float32(0) if error < SMALLEST else error  # NaN stays NaN
            if np.isnan(error) and k != track:
                continue
            row, top = counts[lane[i], k], head[lane[i], k]
            quantile = quantiles[k]
            tail = _tail(row, top, quantile)
            if k == track and top[MASS] >= 8:
                base = -np.log10(1 - quantile + 1 / (top[MASS] + 1))
                band[i] = tail[3] + max(wanted - base, np.float32(0)) * tail[4] / LOG10_E
            if not np.isnan(error):
                out[i, k] = _surprise(row, top, quantile, tail, error)
                apart = out[i, k] >= quarantine and top[MASS] > ENOUGH
                top[APART] = top[APART] + 1 if apart else 0.0
                if not apart or top[APART] > top[MASS]:
                    _insert(row, top, error)
