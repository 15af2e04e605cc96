"""The size of a step, |x_t − x_(t−1)|: the simplest residual, and on web metrics one of the best."""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel


class Step:
    tracks: tuple[str, ...] = ("change",)

    def initial(self, slots: int) -> State:
        return {"change.last": np.full(slots, np.nan, np.float32)}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        _change(state["change.last"], batch.slot, batch.v, out)


@kernel
def _change(last, slot, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        out[i, 0] = abs(v[i] - last[slot[i]])
        if not np.isnan(v[i]):
            last[slot[i]] = v[i]
