"""The smallest distance to the values at the same time of day on earlier days.

A value is usual if any of those days looked like it. Each of the last ``DAYS_KEPT`` days is kept as ``bins``
intervals [least, greatest] of the values in them. The distance to an interval is 0 inside it. The interval
of the neighbouring bin counts too where the time lies near it.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import row_kernel
from detectors.stages.quantised_history import quantise

DAY_NS = 86_400_000_000_000
DAYS_KEPT = 8
DAYS_BACK = (1, 2, 3, 7)  # days that a value is compared with
#: Interval without a value: least above greatest. It stays so however coarse the quantum gets.
EMPTY_INTERVAL = (1, 0)


class SeasonalProfile:
    """Distance to the nearest interval of the same time of day.

    State: 8 · bins · 4 + 36 bytes a channel slot.
    """

    tracks: tuple[str, ...] = ("seasonal",)

    def __init__(self, bins: int) -> None:
        self.bins = bins

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {
            "seasonal.ends": np.tile(np.array(EMPTY_INTERVAL, np.int16), (slots, DAYS_KEPT, self.bins, 1)),
            "seasonal.quantum": np.zeros(slots, np.float32),
            "seasonal.day": np.full((slots, DAYS_KEPT), -1, np.int32),
        }

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, 1) and advance the state in place."""
        arrays = (state["seasonal.ends"], state["seasonal.quantum"], state["seasonal.day"])
        _seasonal_profile(*arrays, batch.slot, batch.time, batch.v, batch.near, out)


@row_kernel
def _seasonal_profile(ends, quantum, day, slot, time, v, near, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    bins = ends.shape[2]
    for i in range(len(slot)):
        row = slot[i]
        if np.isnan(v[i]):
            out[i, 0] = np.nan
            continue
        stored = quantise(ends[row], quantum, row, near[i])
        unit = quantum[row] if quantum[row] > 0 else np.float32(1)
        # In quanta, like the stored values: a value seen before is at distance 0.
        value = stored + (v[i] - near[i]) / unit
        today = time[i] // DAY_NS
        # In half bins, so that the nearer neighbour is known.
        half = (time[i] - today * DAY_NS) * (2 * bins) // DAY_NS
        here = half // 2
        beside = here + 1 if half % 2 else here - 1
        best = np.float32(np.inf)
        for back in DAYS_BACK:
            for bin_ in (here, beside):
                then = today - back + (1 if bin_ == bins else 0) - (1 if bin_ < 0 else 0)
                day_row = then % DAYS_KEPT
                if then == today or day[row, day_row] != then:
                    continue
                low, high = ends[row, day_row, bin_ % bins, 0], ends[row, day_row, bin_ % bins, 1]
                if low <= high:
                    best = min(best, max(max(low - value, value - high), np.float32(0)))
        out[i, 0] = best * unit if best < np.inf else np.nan
        day_row = today % DAYS_KEPT
        if day[row, day_row] != today:
            day[row, day_row] = today
            ends[row, day_row, :, 0], ends[row, day_row, :, 1] = EMPTY_INTERVAL
        end = ends[row, day_row, here]
        empty = end[0] > end[1]
        end[0] = stored if empty else min(end[0], stored)
        end[1] = stored if empty else max(end[1], stored)
