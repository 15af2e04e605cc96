"""SPOT and DSPOT: streaming peaks over threshold with a generalised Pareto tail.

The tail is fitted to the excesses over the 98 % quantile. DSPOT subtracts a moving mean first.

Siffer et al., "Anomaly detection in streams with extreme value theory" (KDD 2017): the level with P(X > z) =
q is z = t + σ/ξ ((q n / N_t)^−ξ − 1). Their likelihood fit is replaced by the moments of the excesses
(Hosking & Wallis 1987), which need 8 bytes instead of all peaks: with mean m and variance s², ξ = (1 − m²/s²)
/ 2 and σ = m (m²/s² + 1) / 2. An alarm counts as at most ``MAX_ALARM_EXCESS`` excesses of the level. The
published method leaves alarms out, which truncates the tail and lowers the next level.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import kernel

BASE_QUANTILE = 0.98
MIN_ROWS_BEFORE_FIT = 500  # before the first fitted level
MIN_PEAKS_BEFORE_FIT = 8
MOVING_MEAN_ROWS = 200.0  # of DSPOT
MAX_ALARM_EXCESS = 2.0
# The method of moments is not valid for tail shapes outside this range.
MAX_TAIL_SHAPE, MIN_TAIL_SHAPE = 0.5, -0.5
STEP_ROWS = 1000  # of the mean absolute surprise that scales the steps of the base quantile
# Columns of "threshold.peaks".
PEAKS_ROWS, PEAKS_BASE, PEAKS_STEP, PEAKS_COUNT, PEAKS_MEAN, PEAKS_SQUARES, PEAKS_DRIFT = range(7)


class SpotThreshold:
    """A fitted tail per series. State: 28 bytes per series.

    With ``drift`` the level follows the moving mean of the surprises.
    """

    def __init__(self, level: float, drift: bool = False) -> None:
        self.level, self.drift = np.float32(level), drift

    def initial(self, n: int) -> State:
        return {"threshold.peaks": np.zeros((n, 7), np.float32)}

    def run(self, state: State, slot: Ints, raw: Floats) -> Floats:
        levels = np.empty(len(slot), np.float32)
        _spot(state["threshold.peaks"], self.level, self.drift, slot, raw, levels)
        return levels


class DSpotThreshold(SpotThreshold):
    """SPOT on the difference from a moving mean. State: 28 bytes per series."""

    def __init__(self, level: float) -> None:
        super().__init__(level, drift=True)


@kernel
def _level(s, rate):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the level that the share ``rate`` of the fitted tail exceeds."""
    mean, variance = s[PEAKS_MEAN], s[PEAKS_SQUARES] / s[PEAKS_COUNT]
    ratio = mean * mean / max(variance, np.float32(1e-9))
    shape = min(max(np.float32(0.5) * (1 - ratio), np.float32(MIN_TAIL_SHAPE)), np.float32(MAX_TAIL_SHAPE))
    scale = mean * (1 - shape)  # the mean excess is scale / (1 − shape), also for a clipped shape
    rarer = rate * s[PEAKS_ROWS] / s[PEAKS_COUNT]
    if abs(shape) < 1e-3:
        return s[PEAKS_BASE] - scale * np.log(rarer)
    return s[PEAKS_BASE] + scale / shape * (rarer**-shape - 1)


@kernel
def _spot(peaks, level, drift, slot, raw, levels):  # type: ignore[no-untyped-def]  # noqa: ANN001
    rate = np.float32(10.0) ** -level
    for i in range(len(slot)):
        s = peaks[slot[i]]
        x = raw[i] - s[PEAKS_DRIFT] if drift else raw[i]
        known = s[PEAKS_ROWS] >= MIN_ROWS_BEFORE_FIT and s[PEAKS_COUNT] >= MIN_PEAKS_BEFORE_FIT
        fitted = _level(s, rate) if known else level
        levels[i] = max(fitted + s[PEAKS_DRIFT] if drift else fitted, np.float32(1))
        s[PEAKS_DRIFT] += (raw[i] - s[PEAKS_DRIFT]) / min(s[PEAKS_ROWS] + 1, np.float32(MOVING_MEAN_ROWS))
        s[PEAKS_ROWS] += 1
        x = min(x, s[PEAKS_BASE] + MAX_ALARM_EXCESS * (fitted - s[PEAKS_BASE])) if known else x
        # Stochastic approximation of the quantile: 0.98 steps up for a value above it, 0.02 steps down for a
        # value below.
        s[PEAKS_STEP] += (abs(x) - s[PEAKS_STEP]) / min(s[PEAKS_ROWS], np.float32(STEP_ROWS))
        above = x > s[PEAKS_BASE]
        s[PEAKS_BASE] += (
            s[PEAKS_STEP]
            * max(1 / s[PEAKS_ROWS], np.float32(1e-3))
            * 5
            * (np.float32(BASE_QUANTILE) if above else np.float32(BASE_QUANTILE - 1))
        )
        if above and s[PEAKS_ROWS] > MIN_ROWS_BEFORE_FIT // 5:
            excess = max(x - s[PEAKS_BASE], np.float32(0))
            s[PEAKS_COUNT] += 1
            off = excess - s[PEAKS_MEAN]
            s[PEAKS_MEAN] += off / s[PEAKS_COUNT]
            s[PEAKS_SQUARES] += off * (excess - s[PEAKS_MEAN])
