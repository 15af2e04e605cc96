"""The mean of the last hour or so against the long mean: a level that moved, whatever the noise."""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel

SHORT = 60.0
LONG = 5000.0


class LevelShift:
    tracks: tuple[str, ...] = ("level",)

    def initial(self, slots: int) -> State:
        return {"level.means": np.zeros((slots, 3), np.float32)}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        _level(state["level.means"], batch.slot, batch.v, out)


@kernel
def _level(means, slot, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        s, value = means[slot[i]], v[i]
        if np.isnan(value):
            out[i, 0] = np.nan
            continue
        s[0] += 1
        s[1] += (value - s[1]) / min(s[0], np.float32(SHORT))
        s[2] += (value - s[2]) / min(s[0], np.float32(LONG))
        out[i, 0] = abs(s[1] - s[2])
