"""The short mean against the long mean of clipped values.

It finds a shift of the bulk of the values.
A value counts at most ``CLIP_DEVIATIONS`` usual deviations from a running median, so spikes neither hide a
shift nor look like one. The median follows by small steps up or down, a stochastic approximation of the
quantile (Robbins & Monro 1951).
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import ONE, kernel

SHORT_ROWS = np.float32(20)
LONG_ROWS = np.float32(5000)
CLIP_DEVIATIONS = np.float32(4)
FAST_START_ROWS = np.float32(100)  # rows in which the median takes the larger steps
#: Step of the median in usual deviations: at the start, and later.
FAST_STEP_DEVIATIONS, SLOW_STEP_DEVIATIONS = np.float32(0.2), np.float32(0.02)
MIN_ROWS_BEFORE_CLIP = np.float32(20)
COL_ROWS, COL_MEDIAN, COL_DEVIATION, COL_SHORT_MEAN, COL_LONG_MEAN = range(5)


class RobustLevelShift:
    """Distance of the short mean to the long mean, both of clipped values.

    State: 20 bytes a channel slot.
    """

    tracks: tuple[str, ...] = ("shift",)

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {"shift.means": np.zeros((slots, 5), np.float32)}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, 1) and advance the state in place."""
        _robust_level_shift(state["shift.means"], batch.slot, batch.v, out)


@kernel
def _robust_level_shift(means, slot, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        s, value = means[slot[i]], v[i]
        if np.isnan(value):
            out[i, 0] = np.nan
            continue
        if s[COL_ROWS] == 0:
            s[COL_MEDIAN] = value
        s[COL_ROWS] += ONE
        rows, usual, off = s[COL_ROWS], s[COL_DEVIATION], value - s[COL_MEDIAN]
        most = CLIP_DEVIATIONS * usual
        away = min(abs(off), most) if rows > MIN_ROWS_BEFORE_CLIP and usual > 0 else abs(off)
        s[COL_DEVIATION] += (away - usual) / min(rows, LONG_ROWS)
        most = CLIP_DEVIATIONS * s[COL_DEVIATION]
        clipped = s[COL_MEDIAN] + max(min(off, most), -most)
        s[COL_SHORT_MEAN] += (clipped - s[COL_SHORT_MEAN]) / min(rows, SHORT_ROWS)
        s[COL_LONG_MEAN] += (clipped - s[COL_LONG_MEAN]) / min(rows, LONG_ROWS)
        out[i, 0] = abs(s[COL_SHORT_MEAN] - s[COL_LONG_MEAN])
        step = s[COL_DEVIATION] * (SLOW_STEP_DEVIATIONS if rows > FAST_START_ROWS else FAST_STEP_DEVIATIONS)
        s[COL_MEDIAN] += step if off > 0 else (-step if off < 0 else np.float32(0))
