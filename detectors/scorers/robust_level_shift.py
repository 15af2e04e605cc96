"""The mean of the last rows against the long mean, of values cut to where they usually are: a shift of the
bulk that spikes cannot hide, nor feign.

A value counts at most ``CUT`` usual deviations from a running median. The median follows by small steps up or
down, a stochastic approximation of the quantile (Robbins & Monro 1951).
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import ONE, kernel

SHORT = np.float32(20)
LONG = np.float32(5000)
CUT = np.float32(4)
FIRST = np.float32(100)  # rows in which the median may move faster
FAST, SLOW = np.float32(0.2), np.float32(0.02)  # of a usual deviation, a step of the median
TRUSTED = np.float32(20)  # rows before a deviation is cut
ROWS, MEDIAN, DEVIATION, NOW, LONG_MEAN = range(5)


class RobustLevelShift:
    """State: 20 bytes a channel slot."""

    tracks: tuple[str, ...] = ("shift",)

    def initial(self, slots: int) -> State:
        return {"shift.means": np.zeros((slots, 5), np.float32)}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        _shift(state["shift.means"], batch.slot, batch.v, out)


@kernel
def _shift(means, slot, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        s, value = means[slot[i]], v[i]
        if np.isnan(value):
            out[i, 0] = np.nan
            continue
        if s[ROWS] == 0:
            s[MEDIAN] = value
        s[ROWS] += ONE
        rows, usual, off = s[ROWS], s[DEVIATION], value - s[MEDIAN]
        most = CUT * usual
        away = min(abs(off), most) if rows > TRUSTED and usual > 0 else abs(off)
        s[DEVIATION] += (away - usual) / min(rows, LONG)
        inside = s[MEDIAN] + max(min(off, CUT * s[DEVIATION]), -CUT * s[DEVIATION])
        s[NOW] += (inside - s[NOW]) / min(rows, SHORT)
        s[LONG_MEAN] += (inside - s[LONG_MEAN]) / min(rows, LONG)
        out[i, 0] = abs(s[NOW] - s[LONG_MEAN])
        step = s[DEVIATION] * (SLOW if rows > FIRST else FAST)
        s[MEDIAN] += step if off > 0 else (-step if off < 0 else np.float32(0))
