"""Volume under the precision-recall surface (VUS-PR), computed fast.

The result equals ``TSB_AD.evaluation.metrics.get_metrics(...)["VUS-PR"]``. Paparrizos et al., "Volume under
the surface" (VLDB 2022); Liu & Paparrizos, "The elephant in the room" (NeurIPS 2024). The published code
takes time proportional to rows × thresholds × windows; here each row is put once into the bucket of the
thresholds that it passes.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.signal import argrelextrema

from pipeline.evaluate.accuracy_metrics import Bools, Floats, Segments, segments

Ints = NDArray[np.int64]

THRESHOLDS = 250
_DEFAULT_WINDOW = 125


def _autocorrelation(values: Floats, lags: int) -> NDArray[np.float64]:
    """Return the sample autocorrelation at lags 0 … ``lags``, by FFT.

    It is biased, with the mean removed. A missing value counts as the mean.
    """
    known = np.isfinite(values)
    centred = np.where(known, values, 0.0) - known * (values[known].mean() if known.any() else 0.0)
    n = len(values)
    spectrum = np.fft.rfft(centred, 2 * n)
    covariance = np.fft.irfft(spectrum * spectrum.conj(), 2 * n)[: min(lags, n - 1) + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / covariance[0]


def find_length(values: Floats) -> int:
    """Return the window of the metric, as ``find_length_rank(values, rank=1)``.

    It is the lag of the highest local maximum of the autocorrelation.
    """
    base = 3
    correlation = _autocorrelation(np.asarray(values, np.float64)[:20_000], 400)[base:]
    peaks = argrelextrema(correlation, np.greater)[0]
    if len(peaks) == 0:
        return _DEFAULT_WINDOW
    # argsort reversed, as published: of equal peaks the last one wins.
    best = int(peaks[np.argsort(correlation[peaks])[::-1][0]])
    return _DEFAULT_WINDOW if best < 3 or best > 300 else best + base


@njit(cache=True)
def _margin_mass(
    label: Bools, truth: Segments, bucket: Ints, window: int, mass: Floats, weight: Floats
) -> None:
    """Sum the soft labels of the rows beside the segments, per bucket.

    ``weight`` (n,) is all zeros before and after the call.
    """
    n, half = len(label), window // 2
    for k in range(len(truth)):
        first, last = truth[k]
        for row in range(last + 1, min(last + half + 1, n)):
            weight[row] += np.sqrt(1.0 - (row - last) / window)
        for row in range(max(first - half, 0), first):
            weight[row] += np.sqrt(1.0 - (first - row) / window)
    for k in range(len(truth)):
        for row in range(max(truth[k, 0] - half, 0), min(truth[k, 1] + half + 1, n)):
            if weight[row] > 0.0:
                if not label[row]:
                    mass[bucket[row]] += min(1.0, weight[row])
                weight[row] = 0.0


@njit(cache=True)
def _existence(truth: Segments, bucket: Ints, window: int, found: Floats) -> int:
    """Count the widened segments whose best row lies in a bucket, per bucket.

    Segments that touch are one.     Returns their number.
    """
    n, half, total, k = len(bucket), window // 2, 0, 0
    while k < len(truth):
        start = max(truth[k, 0] - half, 0)
        while k + 1 < len(truth) and truth[k, 1] + half >= truth[k + 1, 0] - half:
            k += 1
        best = bucket[start]
        for row in range(start, min(truth[k, 1] + half + 1, n)):
            best = min(best, bucket[row])
        found[best] += 1
        total += 1
        k += 1
    return total


@njit(cache=True)
def _volume(label: Bools, truth: Segments, bucket: Ints, predicted: Floats, windows: int) -> float:
    """Return the mean area under the range precision-recall curve.

    The mean is over windows 0 … ``windows``.
    """
    steps, rows_in = len(predicted), 0
    inside = np.zeros(steps)
    for row in range(len(label)):
        if label[row]:
            inside[bucket[row]] += 1.0
            rows_in += 1
    weight, volume = np.zeros(len(label)), 0.0
    for window in range(windows + 1):
        mass, found = np.zeros(steps), np.zeros(steps)
        _margin_mass(label, truth, bucket, window, mass, weight)
        count = _existence(truth, bucket, window, found)
        hits, soft, seen, before = 0.0, 0.0, 0.0, 0.0
        for k in range(steps):
            hits += inside[k]
            soft += mass[k]
            seen += found[k]
            true_mass = hits + soft
            recall = min(true_mass / (rows_in + soft / 2.0), 1.0) * seen / count
            volume += (recall - before) * true_mass / predicted[k]
            before = recall
    return volume / (windows + 1)


def vus_pr(score: Floats, label: Bools, window: int, thresholds: int = THRESHOLDS) -> float:
    """Return the VUS-PR of one series, NaN without an anomalous row.

    ``window`` is ``find_length`` of its values.
    """
    label = np.asarray(label, bool)
    if not label.any():
        return float("nan")
    score = np.asarray(score, np.float64)
    order = np.sort(score)[::-1]
    levels = order[np.linspace(0, len(score) - 1, thresholds).astype(int)]
    # Bucket of a row: the first (highest) of the falling levels that it reaches; of equal levels the first.
    bucket = np.searchsorted(-levels, -score, side="left").astype(np.int64)
    predicted = np.cumsum(np.bincount(bucket, minlength=thresholds))
    predicted = predicted[np.searchsorted(-levels, -levels, side="right") - 1].astype(np.float64)
    return float(_volume(label, segments(label), bucket, predicted, window))
