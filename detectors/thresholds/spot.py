"""Streaming peaks over threshold: a generalised Pareto tail of what exceeds the 98 % quantile (SPOT, and
DSPOT by taking off a moving mean).

Siffer et al., "Anomaly detection in streams with extreme value theory" (KDD 2017): the level with P(X > z) =
q is z = t + σ/ξ ((q n / N_t)^−ξ − 1). Their likelihood fit is replaced by the moments of the excesses
(Hosking & Wallis 1987), which need 8 bytes instead of all peaks: with mean m and variance s², ξ = (1 − m²/s²)
/ 2 and σ = m (m²/s² + 1) / 2. An alarm counts as at most ``FARTHEST`` excesses of the level (left out, as
published, it would cut the tail off and lower the next level).
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import kernel

QUANTILE = 0.98
START = 500  # rows before the first level of its own
DEPTH = 200.0  # rows of DSPOT's moving mean
FARTHEST = 2.0
HEAVIEST, LIGHTEST = 0.5, -0.5  # shapes beyond which moments say nothing
ROWS, BASE, STEP, PEAKS, MEAN, SQUARES, DRIFT = range(7)


class Spot:
    """State: 28 bytes a series. With ``drift`` levels follow the moving mean of the surprises."""

    def __init__(self, level: float, drift: bool = False) -> None:
        self.level, self.drift = np.float32(level), drift

    def initial(self, n: int) -> State:
        return {"threshold.peaks": np.zeros((n, 7), np.float32)}

    def run(self, state: State, slot: Ints, raw: Floats) -> Floats:
        levels = np.empty(len(slot), np.float32)
        _spot(state["threshold.peaks"], self.level, self.drift, slot, raw, levels)
        return levels


class DSpot(Spot):
    def __init__(self, level: float) -> None:
        super().__init__(level, drift=True)


@kernel
def _level(s, rate):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Where the fitted tail leaves ``rate`` beyond it."""
    mean, variance = s[MEAN], s[SQUARES] / s[PEAKS]
    ratio = mean * mean / max(variance, np.float32(1e-9))
    shape = min(max(np.float32(0.5) * (1 - ratio), np.float32(LIGHTEST)), np.float32(HEAVIEST))
    scale = mean * (1 - shape)  # the mean excess is scale / (1 − shape), also where the shape was cut off
    rarer = rate * s[ROWS] / s[PEAKS]
    if abs(shape) < 1e-3:
        return s[BASE] - scale * np.log(rarer)
    return s[BASE] + scale / shape * (rarer**-shape - 1)


@kernel
def _spot(peaks, level, drift, slot, raw, levels):  # type: ignore[no-untyped-def]  # noqa: ANN001
    rate = np.float32(10.0) ** -level
    for i in range(len(slot)):
        s = peaks[slot[i]]
        x = raw[i] - s[DRIFT] if drift else raw[i]
        known = s[ROWS] >= START and s[PEAKS] >= 8
        fitted = _level(s, rate) if known else level
        levels[i] = max(fitted + s[DRIFT] if drift else fitted, np.float32(1))
        s[DRIFT] += (raw[i] - s[DRIFT]) / min(s[ROWS] + 1, np.float32(DEPTH))
        s[ROWS] += 1
        x = min(x, s[BASE] + FARTHEST * (fitted - s[BASE])) if known else x
        # The quantile by stochastic approximation: up by 0.98 steps where the value lies above, down by 0.02
        # where below.
        s[STEP] += (abs(x) - s[STEP]) / min(s[ROWS], np.float32(1000))
        above = x > s[BASE]
        s[BASE] += (
            s[STEP]
            * max(1 / s[ROWS], np.float32(1e-3))
            * 5
            * (np.float32(QUANTILE) if above else np.float32(QUANTILE - 1))
        )
        if above and s[ROWS] > START // 5:
            excess = max(x - s[BASE], np.float32(0))
            s[PEAKS] += 1
            off = excess - s[MEAN]
            s[MEAN] += off / s[PEAKS]
            s[SQUARES] += off * (excess - s[MEAN])
