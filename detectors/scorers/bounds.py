"""How far a value lies outside everything seen so far, and how far from the nearest value ever seen.

``novelty`` also finds values in a gap between two modes. The values seen are kept as at most ``size`` sorted representatives: where
they are full, the two closest neighbours become one, so the distance is off by no more than the smallest gap.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.kernel import kernel
from detectors.lanes import Floats, Lanes


class Bounds:
    tracks: tuple[str, ...] = ("range", "novelty")

    def __init__(self, size: int) -> None:
        self.size = size

    def initial(self, lanes: int) -> State:
        return {"bounds.seen": np.zeros((lanes, self.size), np.float32), "bounds.used": np.zeros(lanes, np.int32)}

    def run(self, state: State, lanes: Lanes, out: Floats) -> None:
        _bounds(state["bounds.seen"], state["bounds.used"], lanes.lane, lanes.v, out)


@kernel
def _remember(seen, n, at, value):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Insert ``value`` before ``at``; where all places are taken, first drop the inner value with the closest neighbours."""
    if n == len(seen):
        tight, narrowest = 1, np.float32(np.inf)
        for k in range(1, n - 1):
            if seen[k + 1] - seen[k - 1] < narrowest:
                tight, narrowest = k, seen[k + 1] - seen[k - 1]
        inside = 0 < at < n and seen[at] - seen[at - 1] <= narrowest
        if inside:
            return n
        for k in range(tight, n - 1):
            seen[k] = seen[k + 1]
        at = at - 1 if at > tight else at
        n -= 1
    for k in range(n, at, -1):
        seen[k] = seen[k - 1]
    seen[at] = value
    return n + 1


@kernel
def _bounds(seen, used, lane, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(lane)):
        row, value, n = seen[lane[i]], v[i], used[lane[i]]
        if np.isnan(value) or n == 0:
            out[i, 0] = out[i, 1] = np.nan
            if n == 0 and not np.isnan(value):
                row[0] = value
                used[lane[i]] = 1
            continue
        at = np.searchsorted(row[:n], value)
        right = row[at] - value if at < n else np.float32(np.inf)
        left = value - row[at - 1] if at > 0 else np.float32(np.inf)
        out[i, 0] = right if at == 0 else (left if at == n else 0.0)
        out[i, 1] = min(left, right)
        if out[i, 1] > 0:
            used[lane[i]] = _remember(row, n, at, value)
