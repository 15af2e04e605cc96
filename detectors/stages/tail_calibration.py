"""Tail calibration: a raw error becomes a surprise.

The surprise is −log10 of the tail probability of the error on the series' own past.
The tail of the last 15,000 to 30,000 errors is kept in a logarithmic histogram of ``bins`` counts, with
``BINS_PER_OCTAVE``. Its offset moves up, and the lowest bins are merged, when a larger error comes. Exact
zeros are counted separately, so that a start on zeros does not set the range.

The counts are halved at ``HALVING_ROWS``, so they are whole numbers of 16 bits. What is left over in a bin
goes to the next lower one, so that the number of errors above any of them is halved too.

Beyond the q-quantile the tail goes on as an exponential with the mean excess over it
(Pickands–Balkema–de Haan with shape 0). It is linear in the error and so keeps the ranking of errors larger
than all before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import ONE, log2, log10, row_kernel

BINS_PER_OCTAVE = 4
HALVING_ROWS = 30_000
#: Errors are clipped to this range, so that the edges of their bins are float32 too.
MIN_ERROR, MAX_ERROR = np.float32(1e-30), np.float32(1e30)
MIN_ROWS_BEFORE_BAND = 8
MIN_ROWS_BEFORE_QUARANTINE = 100
#: Columns of "calibration.head": rows, those with an error of 0, place of the lowest bin in ``BIN_MIDDLES``,
#: and, with a quarantine, the rows on end in it.
COL_MASS, COL_ZEROS, COL_LOWEST, COL_QUARANTINED = range(4)
MAX_QUARANTINED_ROWS = 65_535  # that are counted
LOG10_E = np.float32(0.4342945)
ZERO, HALF, TWO = np.float32(0), np.float32(0.5), np.float32(2)
#: Place in ``BIN_MIDDLES`` of the bin with absolute index 0.
MIDDLES_ORIGIN = 512
#: Geometric middles of all possible bins.
BIN_MIDDLES = (2.0 ** ((np.arange(-MIDDLES_ORIGIN, MIDDLES_ORIGIN) + 0.5) / BINS_PER_OCTAVE)).astype(
    np.float32
)
LOG_BIN_RATIO = np.float32(np.log(2) / BINS_PER_OCTAVE)


class TailCalibration:
    """Surprise of K tracks of errors. State: K · (bins + 3) · 2 bytes a channel slot.

    With ``quarantine``, errors of at least that surprise are not added to the histogram, for at most as many
    rows on end as it holds.
    """

    def __init__(self, quantiles: tuple[float, ...], bins: int, quarantine: float = np.inf) -> None:
        self.tracks, self.bins, self.quantiles = len(quantiles), bins, np.array(quantiles, np.float32)
        self.quarantine = np.float32(quarantine)
        self.columns = COL_QUARANTINED if np.isinf(quarantine) else COL_QUARANTINED + 1

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` rows."""
        head = np.zeros((slots, self.tracks, self.columns), np.uint16)
        head[..., COL_LOWEST] = MIDDLES_ORIGIN
        counts = np.zeros((slots, self.tracks, self.bins), np.uint16)
        return {"calibration.counts": counts, "calibration.head": head}

    def run(
        self, state: State, slot: Ints, errors: Floats, track: int, surprise: float
    ) -> tuple[Floats, NDArray[np.float32]]:
        """Return surprises (M, K) and the band (M,).

        Args:
            state: Arrays of ``initial``, advanced in place.
            slot: Row of the state (M,).
            errors: Errors ≥ 0 (M, K), NaN where no error is known; their surprise is 0.
            track: The track of the band, −1 for no band.
            surprise: The surprise of the band.

        Returns:
            Surprises ≥ 0; and the error of ``track`` with that surprise at each row, NaN before
            ``MIN_ROWS_BEFORE_BAND``.
        """
        out, band = np.zeros(errors.shape, np.float32), np.full(len(slot), np.nan, np.float32)
        counts = state["calibration.counts"].reshape(-1, self.bins)
        head = state["calibration.head"].reshape(-1, self.columns)
        settings = (self.quantiles, self.quarantine, track, np.float32(surprise))
        _calibrate(counts, head, slot, errors, settings, out, band)
        return out, band


@row_kernel
def _exp_bins(x):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return 2^(x / BINS_PER_OCTAVE) for |x| ≤ ½, by the series of e^y."""
    y = LOG_BIN_RATIO * x
    return ONE + y * (ONE + y * (HALF + y * (np.float32(1 / 6) + y * np.float32(1 / 24))))


@row_kernel
def _tail(counts, row, low, wanted):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the error above which the mass ``wanted`` lies.

    The second value is the mean excess over it. ``low`` is the place of the lowest bin in ``BIN_MIDDLES``.
    """
    k = counts.shape[1] - 1
    above, moment, count = ZERO, ZERO, np.float32(counts[row, k])
    while k > 0 and (count == 0 or above + count < wanted):
        above += count
        moment += count * BIN_MIDDLES[low + k]
        k -= 1
        count = np.float32(counts[row, k])
    share = min((wanted - above) / count, ONE) if count > 0 else ONE
    threshold = BIN_MIDDLES[low + k] * _exp_bins(HALF - share)
    taken = count * share
    moment += taken * BIN_MIDDLES[low + k] * _exp_bins(HALF - HALF * share)
    excess = moment / max(above + taken, np.float32(1e-6)) - threshold
    return threshold, max(excess, threshold * np.float32(0.02))


@row_kernel
def _mass_above(counts, row, place):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the mass above ``place``, in bins from the lowest."""
    above = ZERO
    for k in range(counts.shape[1]):
        above += np.float32(counts[row, k]) * min(max(np.float32(k + 1) - place, ZERO), ONE)
    return above


@row_kernel
def _surprise(counts, head, row, quantile, error, place):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return −log10 P(E ≥ error) by the counts so far.

    Beyond the quantile the tail is exponential.
    """
    mass, low = np.float32(head[row, COL_MASS]), int(head[row, COL_LOWEST])
    if head[row, COL_MASS] == head[row, COL_ZEROS]:
        return log10(mass + ONE)
    place -= np.float32(low - MIDDLES_ORIGIN)
    above, wanted = _mass_above(counts, row, place), (ONE - quantile) * mass
    if above >= wanted or place < 0:
        return log10((mass + ONE) / (above + ONE))
    threshold, excess = _tail(counts, row, low, wanted)
    beyond = LOG10_E * (error - threshold) / excess - log10(ONE - quantile + ONE / (mass + ONE))
    return min(beyond, TWO * log10(mass + ONE))  # m values prove no rarity below one in m²


@row_kernel
def _insert(counts, head, row, index):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Count an error in the bin with this absolute index."""
    bins, low = counts.shape[1], int(head[row, COL_LOWEST]) - MIDDLES_ORIGIN
    if head[row, COL_MASS] == head[row, COL_ZEROS]:
        low = index - bins * 3 // 4
        head[row, COL_LOWEST] = low + MIDDLES_ORIGIN
    shift = index - low - bins + 1
    if shift > 0:
        merged = 0
        for k in range(min(shift + 1, bins)):
            merged += int(counts[row, k])
        for k in range(bins):
            counts[row, k] = counts[row, k + shift] if k + shift < bins else 0
        counts[row, 0] = merged
        low += shift
        head[row, COL_LOWEST] = low + MIDDLES_ORIGIN
    counts[row, max(index - low, 0)] += 1
    head[row, COL_MASS] += 1


@row_kernel
def _halve(counts, head, row):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Halve all counts, from the highest bin to the zeros."""
    rest, mass = 0, 0
    for k in range(counts.shape[1] - 1, -1, -1):
        count = int(counts[row, k]) + rest
        counts[row, k], rest = count >> 1, count & 1
        mass += count >> 1
    zeros = (int(head[row, COL_ZEROS]) + rest) >> 1
    head[row, COL_ZEROS], head[row, COL_MASS] = zeros, mass + zeros


@row_kernel
def _calibrate(counts, head, slot, errors, settings, out, band):  # type: ignore[no-untyped-def]  # noqa: ANN001
    quantiles, quarantine, band_track, band_surprise = settings
    tracks = errors.shape[1]
    for i in range(len(slot)):
        for k in range(tracks):
            row, error = slot[i] * tracks + k, errors[i, k]
            mass = np.float32(head[row, COL_MASS])
            if k == band_track and mass >= MIN_ROWS_BEFORE_BAND:
                rare = ONE - quantiles[k]
                threshold, excess = _tail(counts, row, int(head[row, COL_LOWEST]), rare * mass)
                beyond = max(band_surprise + log10(rare + ONE / (mass + ONE)), ZERO)
                band[i] = threshold + beyond * excess / LOG10_E
            if np.isnan(error):
                continue
            positive = error >= MIN_ERROR
            error = min(error, MAX_ERROR)
            place = log2(error) * np.float32(BINS_PER_OCTAVE) if positive else ZERO
            surprise = (
                _surprise(counts, head, row, quantiles[k], error, place) if positive and mass > 0 else ZERO
            )
            out[i, k] = surprise
            if head.shape[1] > COL_QUARANTINED:
                quarantined = surprise >= quarantine and mass > MIN_ROWS_BEFORE_QUARANTINE
                rows = min(int(head[row, COL_QUARANTINED]) + 1, MAX_QUARANTINED_ROWS) if quarantined else 0
                head[row, COL_QUARANTINED] = rows
                if quarantined and rows <= mass:
                    continue
            if mass >= HALVING_ROWS:
                _halve(counts, head, row)
            if positive:
                _insert(counts, head, row, int(np.floor(place)))
            else:
                head[row, COL_MASS] += 1
                head[row, COL_ZEROS] += 1
