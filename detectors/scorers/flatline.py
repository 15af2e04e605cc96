"""A value that repeats longer than ever before: a stuck sensor or a dead channel."""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel

LONGEST_RUN_FACTOR = 1.5
#: Rows beyond that, by track; quotes that come once a day use the shorter one.
PATIENCE_ROWS = (10, 3)
COL_LAST, COL_RUN, COL_LONGEST = range(3)
NEVER_MOVED = -1.0  # longest run of a series that has had one value only


class Flatline:
    """Rows by which a run of equal values exceeds a bound.

    The bound is ``LONGEST_RUN_FACTOR`` times the longest run before, plus ``PATIENCE_ROWS`` of the track.
    State: 12 bytes a channel slot.
    """

    tracks: tuple[str, ...] = ("stuck", "frozen")

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {"stuck.run": np.full((slots, 3), np.nan, np.float32)}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, 2) and advance the state in place."""
        _flatline(state["stuck.run"], batch.slot, batch.v, out)


@kernel
def _flatline(run, slot, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        s = run[slot[i]]
        if np.isnan(v[i]):
            out[i, :] = np.nan
            continue
        if v[i] == s[COL_LAST]:
            s[COL_RUN] += 1
        else:
            # A series that has never moved is constant, which is not a flatline.
            s[COL_LONGEST] = NEVER_MOVED if np.isnan(s[COL_LAST]) else max(s[COL_LONGEST], s[COL_RUN])
            s[COL_LAST], s[COL_RUN] = v[i], 0.0
        for k in range(len(PATIENCE_ROWS)):
            beyond = (
                s[COL_RUN] - np.float32(LONGEST_RUN_FACTOR) * s[COL_LONGEST] - np.float32(PATIENCE_ROWS[k])
            )
            out[i, k] = max(beyond, np.float32(0)) if s[COL_LONGEST] >= 0 else 0.0
