"""Distance of a value to the range and to the nearest value seen so far.

The track ``novelty`` also finds values in a gap between two modes. The values seen are kept as at most
``size`` sorted representatives. Where all places are taken, the two closest neighbours become one, so the
distance is off by no more than the smallest gap.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import row_kernel
from detectors.stages.quantised_history import quantise

FAR_QUANTA = 2**17  # more than the distance of any two stored values


class Novelty:
    """Tracks: distance outside the range, and distance to the nearest representative.

    State: 2 · size + 8 bytes a channel slot.
    """

    tracks: tuple[str, ...] = ("range", "novelty")

    def __init__(self, size: int) -> None:
        self.size = size

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {
            "bounds.seen": np.zeros((slots, self.size), np.int16),
            "bounds.quantum": np.zeros(slots, np.float32),
            "bounds.used": np.zeros(slots, np.int32),
        }

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, 2) and advance the state in place."""
        arrays = (state["bounds.seen"], state["bounds.quantum"], state["bounds.used"])
        _novelty(*arrays, batch.slot, batch.near, out)


@row_kernel
def _insert_sorted(seen, n, at, value):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Insert ``value`` before ``at`` and return how many places are used then.

    Where all are taken, first drop the inner value whose neighbours are closest to each other.
    """
    if n == len(seen):
        tight, narrowest = 1, FAR_QUANTA
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


@row_kernel
def _novelty(seen, quantum, used, slot, near, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        row, n = seen[slot[i]], used[slot[i]]
        if np.isnan(near[i]):
            out[i, :] = np.nan
            continue
        value = quantise(row, quantum, slot[i], near[i])
        if n == 0:
            out[i, :] = np.nan
            row[0] = value
            used[slot[i]] = 1
            continue
        at = np.searchsorted(row[:n], value)
        right = row[at] - value if at < n else FAR_QUANTA
        left = value - row[at - 1] if at > 0 else FAR_QUANTA
        out[i, 0] = quantum[slot[i]] * (right if at == 0 else (left if at == n else 0))
        out[i, 1] = quantum[slot[i]] * min(left, right)
        if min(left, right) > 0:
            used[slot[i]] = _insert_sorted(row, n, at, value)
