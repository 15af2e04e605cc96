"""The smallest distance to the same time of day on earlier days: ordinary only if any of them looked like it.

Each of the last seven days is kept as ``bins`` intervals [least, greatest] of the values seen there. The
distance to an interval is 0 inside it. The interval of the bin beside the current one counts too where the
time lies near it. An interval without values is (1, 0), which stays what it is however coarse the quantum
gets.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel
from detectors.stages.quantised_history import quantise

DAY = 86_400_000_000_000
DAYS = 8
BACK = (1, 2, 3, 7)
NOTHING = (1, 0)  # no value yet: least above greatest


class SeasonalProfile:
    """State: 8 · bins · 4 bytes a channel slot and a little."""

    tracks: tuple[str, ...] = ("seasonal",)

    def __init__(self, bins: int) -> None:
        self.bins = bins

    def initial(self, slots: int) -> State:
        return {
            "seasonal.ends": np.tile(np.array(NOTHING, np.int16), (slots, DAYS, self.bins, 1)),
            "seasonal.quantum": np.zeros(slots, np.float32),
            "seasonal.day": np.full((slots, DAYS), -1, np.int32),
        }

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        names = ("seasonal.ends", "seasonal.quantum", "seasonal.day")
        _seasonal(*(state[name] for name in names), batch.slot, batch.time, batch.v, batch.near, out)


@kernel
def _seasonal(ends, quantum, day, slot, time, v, near, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    bins = ends.shape[2]
    for i in range(len(slot)):
        row = slot[i]
        if np.isnan(v[i]):
            out[i, 0] = np.nan
            continue
        kept = quantise(ends[row], quantum, row, near[i])
        unit = quantum[row] if quantum[row] > 0 else np.float32(1)
        # in quanta, as what is kept is: a value seen before is at distance 0
        value = kept + (v[i] - near[i]) / unit
        today = time[i] // DAY
        # in half bins, so that the nearer neighbour is known
        place = (time[i] - today * DAY) * (2 * bins) // DAY
        here = place // 2
        beside = here + 1 if place % 2 else here - 1
        best = np.float32(np.inf)
        for back in BACK:
            for spot in (here, beside):
                then = today - back + (1 if spot == bins else 0) - (1 if spot < 0 else 0)
                day_row = then % DAYS
                if then == today or day[row, day_row] != then:
                    continue
                low, high = ends[row, day_row, spot % bins, 0], ends[row, day_row, spot % bins, 1]
                if low <= high:
                    best = min(best, max(max(low - value, value - high), np.float32(0)))
        out[i, 0] = best * unit if best < np.inf else np.nan
        day_row = today % DAYS
        if day[row, day_row] != today:
            day[row, day_row] = today
            ends[row, day_row, :, 0], ends[row, day_row, :, 1] = NOTHING
        end = ends[row, day_row, here]
        empty = end[0] > end[1]
        end[0] = kept if empty else min(end[0], kept)
        end[1] = kept if empty else max(end[1], kept)
