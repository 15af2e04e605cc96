"""Steady-state model of a channel.

It is an AR(3) that is fitted rarely, and never on rows that it finds unusual.
A forecaster that keeps learning follows a fault within minutes and then calls it normal. This model is
solved by least squares at 100 rows and then each time the rows have doubled. Once it has learned from
``MIN_ROWS_BEFORE_UNUSUAL`` rows, it learns nothing while its averaged error is unusual, for at most as many
rows on end as it has learned from. So a lasting new level becomes normal in the end.

A channel that is noise about a level gets small weights and a constant, so a new level stays an error for as
long as it lasts. A channel that wanders gets weights that sum to 1, so only its steps count.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel

ORDER = 3
WEIGHTS = ORDER + 1  # and the constant
MIN_ROWS_BEFORE_FIT = 100
MIN_ROWS_BEFORE_UNUSUAL = 300  # learned, before a row counts as unusual
AVERAGING_ROWS = 10.0  # of the averaged error
UNUSUAL_MEAN_ERROR = 2.2  # averaged error from which on nothing is learned
MAX_UNUSUAL_ROWS = 5000.0  # rows on end of which nothing is learned
CLIP_USUAL_ERRORS = 3.0  # size that one error counts at most in the usual error
MAX_ERROR_RATIO = 20.0
USUAL_ERROR_ROWS = 2000.0
MIN_ROWS_BEFORE_CLIP = 50
MIN_ROWS_BEFORE_RATIO = 8
COL_LEARNED, COL_JUDGED, COL_DUE, COL_UNUSUAL, COL_USUAL_ERROR, COL_MEAN, COL_SPREAD, COL_ROWS = range(8)


class SteadyState:
    """The averaged error in usual errors, about 1. State: 116 bytes a channel slot."""

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {
            # Lower triangle by columns.
            "settled.moments": np.zeros((slots, WEIGHTS * (WEIGHTS + 1) // 2), np.float32),
            "settled.cross": np.zeros((slots, WEIGHTS), np.float32),
            "settled.weights": np.zeros((slots, WEIGHTS), np.float32),
            "settled.past": np.zeros((slots, ORDER), np.float32),
            "settled.clock": np.zeros((slots, 8), np.float32),
        }

    def run(self, state: State, batch: ChannelBatch) -> Floats:
        """Return the averaged errors (M,), NaN where the value is missing.

        They are 1 before the first fit: the calibration needs those rows, which stand for white noise.
        """
        out = np.full(len(batch), np.nan, np.float32)
        names = ("moments", "cross", "weights", "past", "clock")
        _steady_state(*(state[f"settled.{name}"] for name in names), batch.slot, batch.v, out)
        return out


@kernel
def _solve(moments, cross, weights):  # type: ignore[no-untyped-def]  # noqa: ANN001
    a, b = np.zeros((WEIGHTS, WEIGHTS)), np.zeros(WEIGHTS)
    at, trace = 0, 0.0
    for j in range(WEIGHTS):
        b[j] = cross[j]
        for i in range(j + 1):
            a[i, j] = a[j, i] = moments[at]
            at += 1
        trace += a[j, j]
    for j in range(WEIGHTS):
        a[j, j] += 1e-6 * trace / WEIGHTS + 1e-12
    weights[:] = np.linalg.solve(a, b).astype(np.float32)


@kernel
def _learn(moments, cross, weights, t, phi, value, miss):  # type: ignore[no-untyped-def]  # noqa: ANN001
    at = 0
    for j in range(WEIGHTS):
        cross[j] += phi[j] * value
        for i in range(j + 1):
            moments[at] += phi[j] * phi[i]
            at += 1
    if t[COL_JUDGED] > MIN_ROWS_BEFORE_CLIP:
        miss = min(miss, CLIP_USUAL_ERRORS * t[COL_USUAL_ERROR])
    t[COL_LEARNED] += 1
    t[COL_JUDGED] += 1
    t[COL_USUAL_ERROR] += (miss - t[COL_USUAL_ERROR]) / min(t[COL_JUDGED], np.float32(USUAL_ERROR_ROWS))
    if t[COL_LEARNED] >= max(t[COL_DUE], np.float32(MIN_ROWS_BEFORE_FIT)):
        _solve(moments, cross, weights)
        # The errors before the first fit are those of another forecaster.
        t[COL_JUDGED] = 0.0 if t[COL_DUE] == 0 else t[COL_JUDGED]
        t[COL_DUE] = 2 * t[COL_LEARNED]


@kernel
def _steady_state(moments, cross, weights, past, clock, slot, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    phi = np.empty(WEIGHTS, np.float32)
    for i in range(len(slot)):
        row, value = slot[i], v[i]
        t, w, p = clock[row], weights[row], past[row]
        if np.isnan(value):
            continue
        if t[COL_ROWS] == 0:
            w[0] = 1.0
        if t[COL_ROWS] >= ORDER:
            phi[:ORDER], phi[ORDER] = p, t[COL_SPREAD] if t[COL_SPREAD] > 0 else 1.0
            guess = np.float32(0)
            for j in range(WEIGHTS):
                guess += w[j] * phi[j]
            miss = abs(value - guess)
            known = t[COL_JUDGED] > MIN_ROWS_BEFORE_RATIO and t[COL_USUAL_ERROR] > 0
            ratio = min(miss / t[COL_USUAL_ERROR], np.float32(MAX_ERROR_RATIO)) if known else np.float32(1)
            t[COL_MEAN] += (ratio - t[COL_MEAN]) / min(t[COL_ROWS] - ORDER + 1, np.float32(AVERAGING_ROWS))
            unusual = t[COL_LEARNED] >= MIN_ROWS_BEFORE_UNUSUAL and t[COL_MEAN] > UNUSUAL_MEAN_ERROR
            t[COL_UNUSUAL] = t[COL_UNUSUAL] + 1 if unusual else 0.0
            out[i] = t[COL_MEAN] if t[COL_DUE] > 0 else 1.0
            if not unusual or t[COL_UNUSUAL] > min(t[COL_LEARNED], np.float32(MAX_UNUSUAL_ROWS)):
                _learn(moments[row], cross[row], w, t, phi, value, miss)
        if t[COL_DUE] == 0:  # the size of the constant is fixed once its weight is known
            t[COL_SPREAD] += (abs(value) - t[COL_SPREAD]) / (t[COL_ROWS] + 1)
        t[COL_ROWS] += 1
        p[1:] = p[:-1].copy()
        p[0] = value
