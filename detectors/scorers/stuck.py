"""A value that repeats longer than it ever did: a stuck sensor, a dead channel, a frozen quote."""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.kernel import kernel
from detectors.lanes import Floats, Lanes

FACTOR = 1.5
PATIENCE = 3
LAST, RUN, LONGEST = range(3)


class Stuck:
    """The rows by which a run of equal values exceeds ``FACTOR`` times the longest before, and ``PATIENCE``. State: 12 bytes a lane."""

    tracks: tuple[str, ...] = ("stuck",)

    def initial(self, lanes: int) -> State:
        return {"stuck.run": np.full((lanes, 3), np.nan, np.float32)}

    def run(self, state: State, lanes: Lanes, out: Floats) -> None:
        _stuck(state["stuck.run"], lanes.lane, lanes.v, out)


@kernel
def _stuck(run, lane, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(lane)):
        s = run[lane[i]]
        if np.isnan(v[i]):
            out[i, 0] = np.nan
            continue
        if v[i] == s[LAST]:
            s[RUN] += 1
        else:
            s[LONGEST] = -1.0 if np.isnan(s[LAST]) else max(s[LONGEST], s[RUN])  # −1: it never moved, which is not being stuck
            s[LAST], s[RUN] = v[i], 0.0
        out[i, 0] = max(s[RUN] - np.float32(FACTOR) * s[LONGEST] - np.float32(PATIENCE), np.float32(0)) if s[LONGEST] >= 0 else 0.0
