"""Repeated hour of local time, told apart by the order of the points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.core.durations import SECOND_NS
from pipeline.windows.event_time_kernels import CADENCE_EVERY, NEVER, update_cadence

#: Interval between points from which two equal local times are both readings, not a duplicate.
MIN_CADENCE_OF_EQUAL_TIMES_NS = 45 * 60 * SECOND_NS


def tell_apart(
    times: NDArray[np.int64],
    slots: NDArray[np.int32],
    shift: NDArray[np.int64],
    last_time: NDArray[np.int64],
    cadence: NDArray[np.int64],
    fixed: int,
) -> NDArray[np.int64]:
    """Return the times (N,), moved to the second reading where they go back.

    Args:
        times: Times by the first reading, in the order of the points.
        slots: Series of each point.
        shift: Distance of the second reading, 0 for a time with one reading.
        last_time: Time of the last point of each series, NEVER before its first.
        cadence: State of the cadences, which is not changed.
        fixed: Configured cadence, 0 if it is learned.
    """
    out, cadence = times.copy(), cadence.copy()
    last: dict[int, int] = {}
    for point in range(len(times)):
        slot, time = int(slots[point]), int(times[point])
        before = last.get(slot, int(last_time[slot]))
        if shift[point] and before != NEVER:
            hourly = (fixed or cadence[slot, CADENCE_EVERY]) >= MIN_CADENCE_OF_EQUAL_TIMES_NS
            later = time + int(shift[point])
            if (time < before and later >= before) or (time == before and hourly):
                time = out[point] = later
        if before != NEVER and time > before and not fixed:
            update_cadence(cadence, slot, time - before)  # as the admission of the point will
        last[slot] = max(before, time)
    return out
