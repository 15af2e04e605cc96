"""Where a channel settled: an AR(3) of its own that learns seldom, and never from what it finds unusual.

A forecaster that keeps learning follows a fault within minutes and then calls it normal. This one is solved
when 100 rows are known and then each time twice as many are, by least squares, and once it has settled it
learns nothing while its averaged error is unusual (for at most as many rows on end as it learned from, so
that a new normal becomes one in the end). A channel that is noise about a level gets small weights and a
constant: a new level stays an error for as long as it lasts; a channel that wanders gets weights that sum to
1, and only its steps count.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel

ORDER = 3
WIDTH = ORDER + 1
FIRST = 100
ENOUGH = 300  # rows learned before anything counts as unusual
SPAN = 10.0  # rows of the averaged error
UNUSUAL = 2.2  # averaged errors, from which nothing is learned
LONGEST = 5000.0  # rows on end of which nothing is learned
CLIP = 3.0  # usual errors that one error counts in the usual error
LARGEST = 20.0
USUAL = 2000.0
WARM = 50
LEARNED, JUDGED, DUE, QUIET, SIZE, MEAN, SPREAD, ROWS = range(8)


class SteadyState:
    """The averaged error in usual errors, about 1. State: 4 · (10 + 4 + 4 + 3 + 8) bytes a channel slot."""

    def initial(self, slots: int) -> State:
        return {
            "settled.moments": np.zeros((slots, WIDTH * (WIDTH + 1) // 2), np.float32),
            "settled.cross": np.zeros((slots, WIDTH), np.float32),
            "settled.weights": np.zeros((slots, WIDTH), np.float32),
            "settled.past": np.zeros((slots, ORDER), np.float32),
            "settled.clock": np.zeros((slots, 8), np.float32),
        }

    def run(self, state: State, batch: ChannelBatch) -> Floats:
        """(M,); NaN where the value is missing.

        Until something is known all is as usual, 1: those rows stand for white noise in what is calibrated.
        """
        out = np.full(len(batch), np.nan, np.float32)
        names = ("moments", "cross", "weights", "past", "clock")
        _settled(*(state[f"settled.{name}"] for name in names), batch.slot, batch.v, out)
        return out


@kernel
def _solve(moments, cross, weights):  # type: ignore[no-untyped-def]  # noqa: ANN001
    a, b = np.zeros((WIDTH, WIDTH)), np.zeros(WIDTH)
    at, trace = 0, 0.0
    for j in range(WIDTH):
        b[j] = cross[j]
        for i in range(j + 1):
            a[i, j] = a[j, i] = moments[at]
            at += 1
        trace += a[j, j]
    for j in range(WIDTH):
        a[j, j] += 1e-6 * trace / WIDTH + 1e-12
    weights[:] = np.linalg.solve(a, b).astype(np.float32)


@kernel
def _learn(moments, cross, weights, t, phi, value, miss):  # type: ignore[no-untyped-def]  # noqa: ANN001
    at = 0
    for j in range(WIDTH):
        cross[j] += phi[j] * value
        for i in range(j + 1):
            moments[at] += phi[j] * phi[i]
            at += 1
    if t[JUDGED] > WARM:
        miss = min(miss, CLIP * t[SIZE])
    t[LEARNED] += 1
    t[JUDGED] += 1
    t[SIZE] += (miss - t[SIZE]) / min(t[JUDGED], np.float32(USUAL))
    if t[LEARNED] >= max(t[DUE], np.float32(FIRST)):
        _solve(moments, cross, weights)
        t[JUDGED] = 0.0 if t[DUE] == 0 else t[JUDGED]  # the errors until now were those of another forecaster
        t[DUE] = 2 * t[LEARNED]


@kernel
def _settled(moments, cross, weights, past, clock, slot, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    phi = np.empty(WIDTH, np.float32)
    for i in range(len(slot)):
        t, w, p, value = clock[slot[i]], weights[slot[i]], past[slot[i]], v[i]
        if np.isnan(value):
            continue
        if t[ROWS] == 0:
            w[0] = 1.0
        if t[ROWS] >= ORDER:
            phi[:ORDER], phi[ORDER] = p, t[SPREAD] if t[SPREAD] > 0 else 1.0
            guess = np.float32(0)
            for j in range(WIDTH):
                guess += w[j] * phi[j]
            miss = abs(value - guess)
            ratio = (
                min(miss / t[SIZE], np.float32(LARGEST)) if t[JUDGED] > 8 and t[SIZE] > 0 else np.float32(1)
            )
            t[MEAN] += (ratio - t[MEAN]) / min(t[ROWS] - ORDER + 1, np.float32(SPAN))
            unusual = t[LEARNED] >= ENOUGH and t[MEAN] > UNUSUAL
            t[QUIET] = t[QUIET] + 1 if unusual else 0.0
            out[i] = t[MEAN] if t[DUE] > 0 else 1.0
            if not unusual or t[QUIET] > min(t[LEARNED], np.float32(LONGEST)):
                _learn(moments[slot[i]], cross[slot[i]], w, t, phi, value, miss)
        if t[DUE] == 0:  # what the constant stands for may not move once its weight is known
            t[SPREAD] += (abs(value) - t[SPREAD]) / (t[ROWS] + 1)
        t[ROWS] += 1
        p[1:] = p[:-1].copy()
        p[0] = value
