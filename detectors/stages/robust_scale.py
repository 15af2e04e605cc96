"""Level and scale of a series from its past only.

They are winsorised, exponentially forgetting moments.
A point counts at most ``CLIP_SCALES``, so one spike cannot inflate the scale (Huber's ψ). A lasting change is
followed within a fraction of ``FORGETTING_ROWS``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import ChannelBatch
from detectors.jit import kernel

FORGETTING_ROWS = 10_000.0
CLIP_SCALES = 6.0
MIN_ROWS_BEFORE_CLIP = 24
MAX_STORED_SCALES = 1000.0  # distance from the level within which a value is stored as it is
MAX_ABS_DIFFERENCE = 1e15  # its square still fits in a float32
MAX_ABS_Z = 1e4
NORMAL_SD_PER_MEAN_DEVIATION = 1.2533  # of a normal distribution
COL_ROWS, COL_LEVEL, COL_DEVIATION, COL_STEP, COL_LAST, COL_ANCHOR = range(6)


class RobustScale:
    """First stage of every detector.

    It fills ``v``, ``near``, ``z``, ``unit`` and ``step``.
    """

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {"scale.moments": np.zeros((slots, 6))}

    def run(self, state: State, batch: ChannelBatch) -> None:
        """Fill the columns of ``batch`` and advance the state in place."""
        columns = (batch.v, batch.near, batch.z, batch.unit, batch.step)
        _robust_scale(state["scale.moments"], batch.slot, batch.x, *columns)


def anchors(state: State, batch: ChannelBatch) -> NDArray[np.float64]:
    """Return what added to ``batch.v`` is the given value in working units (M,)."""
    return np.asarray(state["scale.moments"][batch.slot, COL_ANCHOR] + batch.split)


@kernel
def _robust_scale(moments, slot, x, v, near, z, unit, step):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        s = moments[slot[i]]
        floor = 1e-9 * abs(s[COL_LEVEL]) + 1e-30
        scale = NORMAL_SD_PER_MEAN_DEVIATION * s[COL_DEVIATION] + floor
        unit[i] = scale
        step[i] = s[COL_STEP] + floor
        value = x[i]
        if not np.isfinite(value):
            v[i] = near[i] = np.nan
            z[i] = (s[COL_LAST] - s[COL_LEVEL]) / scale if s[COL_DEVIATION] > 0 else 0.0
            continue
        if s[COL_ROWS] == 0:
            s[COL_ANCHOR] = s[COL_LEVEL] = s[COL_LAST] = value
        s[COL_ROWS] += 1
        off, move = value - s[COL_LEVEL], abs(value - s[COL_LAST])
        v[i] = min(max(value - s[COL_ANCHOR], -MAX_ABS_DIFFERENCE), MAX_ABS_DIFFERENCE)
        z[i] = min(max(off / scale, -MAX_ABS_Z), MAX_ABS_Z) if s[COL_DEVIATION] > 0 else 0.0
        near[i] = v[i]
        rate = 1.0 / min(s[COL_ROWS], FORGETTING_ROWS)
        if s[COL_ROWS] > MIN_ROWS_BEFORE_CLIP and s[COL_DEVIATION] > 0:
            level = s[COL_LEVEL] - s[COL_ANCHOR]
            near[i] = min(max(v[i], level - MAX_STORED_SCALES * scale), level + MAX_STORED_SCALES * scale)
            off = min(max(off, -CLIP_SCALES * scale), CLIP_SCALES * scale)
            move = min(move, CLIP_SCALES * 2 * step[i])
        s[COL_LEVEL] += rate * off
        s[COL_DEVIATION] += rate * (abs(off) - s[COL_DEVIATION])
        s[COL_STEP] += rate * (move - s[COL_STEP])
        s[COL_LAST] = value
