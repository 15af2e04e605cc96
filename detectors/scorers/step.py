"""The size of a step, |x_t − x_(t−1)|.

It is the simplest residual, and on web metrics one of the best.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel


class Step:
    """Distance to the last value. State: 4 bytes a channel slot."""

    tracks: tuple[str, ...] = ("change",)

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {"change.last": np.full(slots, np.nan, np.float32)}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, 1) and advance the state in place."""
        _step(state["change.last"], batch.slot, batch.v, out)


@kernel
def _step(last, slot, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        out[i, 0] = abs(v[i] - last[slot[i]])
        if not np.isnan(v[i]):
            last[slot[i]] = v[i]
