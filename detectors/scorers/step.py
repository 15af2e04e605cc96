"""The size of a step, |x_t − x_(t−1)|: the simplest residual, and on web metrics one of the best."""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import Floats, Lanes
from detectors.jit import kernel


class Change:
    tracks: tuple[str, ...] = ("change",)

    def initial(self, lanes: int) -> State:
        return {"change.last": np.full(lanes, np.nan, np.float32)}

    def run(self, state: State, lanes: Lanes, out: Floats) -> None:
        _change(state["change.last"], lanes.lane, lanes.v, out)


@kernel
def _change(last, lane, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(lane)):
        out[i, 0] = abs(v[i] - last[lane[i]])
        if not np.isnan(v[i]):
            last[lane[i]] = v[i]
