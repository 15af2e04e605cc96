"""Where a series lies and how wide it moves, from its past only: winsorised, exponentially forgetting
moments.

A point counts at most ``CLIP`` deviations, so one spike cannot blow up the scale (Huber's ψ); a lasting
change is followed within a fraction of ``MEMORY``.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch
from detectors.jit import kernel

MEMORY = 10_000.0
CLIP = 6.0
WARM = 24
FAR = 1000.0  # scales within which a value is remembered as it is
LARGEST = 1e15  # squares of differences still fit in float32
N, LOC, DEV, STEP, LAST, ANCHOR = range(6)


class RobustScale:
    """First stage of every detector: fills ``v``, ``near``, ``z``, ``unit`` and ``step``."""

    def initial(self, slots: int) -> State:
        return {"scale.moments": np.zeros((slots, 6))}

    def run(self, state: State, batch: ChannelBatch) -> None:
        _scale(
            state["scale.moments"], batch.slot, batch.x, batch.v, batch.near, batch.z, batch.unit, batch.step
        )


@kernel
def _scale(moments, slot, x, v, near, z, unit, step):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        s = moments[slot[i]]
        floor = 1e-9 * abs(s[LOC]) + 1e-30
        scale = 1.2533 * s[DEV] + floor  # a normal's standard deviation from its mean absolute deviation
        unit[i] = scale
        step[i] = s[STEP] + floor
        value = x[i]
        if not np.isfinite(value):
            v[i] = near[i] = np.nan
            z[i] = (s[LAST] - s[LOC]) / scale if s[DEV] > 0 else 0.0
            continue
        if s[N] == 0:
            s[ANCHOR] = s[LOC] = s[LAST] = value
        s[N] += 1
        off, move = value - s[LOC], abs(value - s[LAST])
        v[i] = min(max(value - s[ANCHOR], -LARGEST), LARGEST)
        z[i] = min(max(off / scale, -1e4), 1e4) if s[DEV] > 0 else 0.0
        near[i] = v[i]
        rate = 1.0 / min(s[N], MEMORY)
        if s[N] > WARM and s[DEV] > 0:
            near[i] = min(max(v[i], s[LOC] - s[ANCHOR] - FAR * scale), s[LOC] - s[ANCHOR] + FAR * scale)
            off = min(max(off, -CLIP * scale), CLIP * scale)
            move = min(move, CLIP * 2 * step[i])
        s[LOC] += rate * off
        s[DEV] += rate * (abs(off) - s[DEV])
        s[STEP] += rate * (move - s[STEP])
        s[LAST] = value
