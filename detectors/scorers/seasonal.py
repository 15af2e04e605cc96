"""The smallest distance to the same time of day on earlier days: ordinary only if any of them looked like it.

Each of the last seven days is kept as ``bins`` intervals [least, greatest] of the values seen there. The distance to an interval is 0
inside it. The interval of the bin beside the current one counts too where the time lies near it.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.kernel import kernel
from detectors.lanes import Floats, Lanes

DAY = 86_400_000_000_000
DAYS = 8
BACK = (1, 2, 3, 7)


class Seasonal:
    """State: 8 · bins · 8 bytes a lane."""

    tracks: tuple[str, ...] = ("seasonal",)

    def __init__(self, bins: int) -> None:
        self.bins = bins

    def initial(self, lanes: int) -> State:
        return {
            "seasonal.ends": np.full((lanes, DAYS, self.bins, 2), np.nan, np.float32),
            "seasonal.day": np.full((lanes, DAYS), -1, np.int32),
        }

    def run(self, state: State, lanes: Lanes, out: Floats) -> None:
        _seasonal(state["seasonal.ends"], state["seasonal.day"], lanes.lane, lanes.time, lanes.v, out)


@kernel
def _seasonal(ends, day, lane, time, v, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    bins = ends.shape[2]
    for i in range(len(lane)):
        row, value = lane[i], v[i]
        today = time[i] // DAY
        place = (time[i] - today * DAY) * (2 * bins) // DAY  # in half bins, so that the nearer neighbour is known
        here = place // 2
        beside = here + 1 if place % 2 else here - 1
        best = np.float32(np.inf)
        for back in BACK:
            for near in (here, beside):
                then = today - back + (1 if near == bins else 0) - (1 if near < 0 else 0)
                slot = then % DAYS
                if then == today or day[row, slot] != then:
                    continue
                low, high = ends[row, slot, near % bins, 0], ends[row, slot, near % bins, 1]
                if not np.isnan(low):
                    best = min(best, max(max(low - value, value - high), np.float32(0)))
        out[i, 0] = best if best < np.inf and not np.isnan(value) else np.nan
        if np.isnan(value):
            continue
        slot = today % DAYS
        if day[row, slot] != today:
            day[row, slot] = today
            ends[row, slot] = np.nan
        end = ends[row, slot, here]
        end[0] = value if np.isnan(end[0]) else min(end[0], value)
        end[1] = value if np.isnan(end[1]) else max(end[1], value)
