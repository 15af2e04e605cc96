"""The short mean against the long mean: a level that moved, whatever the noise."""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel

SHORT_ROWS = 60.0
LONG_ROWS = 5000.0
COL_ROWS, COL_SHORT_MEAN, COL_LONG_MEAN = range(3)


class LevelShift:
    """Distance of the short mean to the long mean.

    They are over the last ``SHORT_ROWS`` and ``LONG_ROWS``.
    State: 12 bytes a channel slot.
    """

    tracks: tuple[str, ...] = ("level",)

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {"level.means": np.zeros((slots, 3), np.float32)}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, 1) and advance the state in place."""
        _level_shift(state["level.means"], batch.slot, batch.v, out)


@kernel
def _level_shift(means, slot, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        s, value = means[slot[i]], v[i]
        if np.isnan(value):
            out[i, 0] = np.nan
            continue
        s[COL_ROWS] += 1
        s[COL_SHORT_MEAN] += (value - s[COL_SHORT_MEAN]) / min(s[COL_ROWS], np.float32(SHORT_ROWS))
        s[COL_LONG_MEAN] += (value - s[COL_LONG_MEAN]) / min(s[COL_ROWS], np.float32(LONG_ROWS))
        out[i, 0] = abs(s[COL_SHORT_MEAN] - s[COL_LONG_MEAN])
