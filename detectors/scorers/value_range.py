"""Distance of a value to the range seen so far.

This is the track ``range`` of ``detectors.scorers.novelty`` in 8 bytes.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import row_kernel


class ValueRange:
    """Distance outside [least, greatest] of the past. State: 8 bytes a channel slot."""

    tracks: tuple[str, ...] = ("range",)

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {"range.ends": np.full((slots, 2), np.nan, np.float32)}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, 1) and advance the state in place."""
        _value_range(state["range.ends"], batch.slot, batch.v, out)


@row_kernel
def _value_range(ends, slot, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        end, value = ends[slot[i]], v[i]
        if np.isnan(value) or np.isnan(end[0]):
            out[i, 0] = np.nan
        else:
            out[i, 0] = max(max(end[0] - value, value - end[1]), np.float32(0))
        if not np.isnan(value):
            end[0] = value if np.isnan(end[0]) else min(end[0], value)
            end[1] = value if np.isnan(end[1]) else max(end[1], value)
