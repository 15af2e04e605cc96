"""A value that repeats longer than it ever did: a stuck sensor, a dead channel; ``frozen`` is less patient,
for quotes that come once a day.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel

FACTOR = 1.5
PATIENCE = (10, 3)
LAST, RUN, LONGEST = range(3)


class Flatline:
    """The rows by which a run of equal values exceeds ``FACTOR`` times the longest before, and its
    ``PATIENCE``. State: 12 bytes a channel slot.
    """

    tracks: tuple[str, ...] = ("stuck", "frozen")

    def initial(self, slots: int) -> State:
        return {"stuck.run": np.full((slots, 3), np.nan, np.float32)}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        _stuck(state["stuck.run"], batch.slot, batch.v, out)


@kernel
def _stuck(run, slot, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        s = run[slot[i]]
        if np.isnan(v[i]):
            out[i, :] = np.nan
            continue
        if v[i] == s[LAST]:
            s[RUN] += 1
        else:
            # −1: it never moved, which is not being stuck
            s[LONGEST] = -1.0 if np.isnan(s[LAST]) else max(s[LONGEST], s[RUN])
            s[LAST], s[RUN] = v[i], 0.0
        for k in range(len(PATIENCE)):
            beyond = s[RUN] - np.float32(FACTOR) * s[LONGEST] - np.float32(PATIENCE[k])
            out[i, k] = max(beyond, np.float32(0)) if s[LONGEST] >= 0 else 0.0
