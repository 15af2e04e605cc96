"""Points of a clock that was ahead for a moment.

A clock that jumps to another year and comes back leaves points that all later ones of the series are
late for. The log's own time and the present show that of a time in the future. In a log of the past, only the
other points do: a point leaps if its series, later in the same batch, goes on from before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.core.durations import SECOND_NS
from pipeline.decode.columns import SeriesKeys

#: A smaller way back is that of points out of order.
MIN_LEAP_NS = 86_400 * SECOND_NS


def leaping_points(
    keys: SeriesKeys, time: NDArray[np.int64], logged: NDArray[np.int64], least_ns: int
) -> Iterator[tuple[int, int]]:
    """Yield each leaping point, and the time with which its series goes on.

    Args:
        keys: series of the points (N,).
        time: event times (N,), ns; negative: not usable.
        logged: times of the log (N,), ns; negative: none. A point near its own is none of a wrong clock.
        least_ns: least leap.
    """
    least = max(least_ns, MIN_LEAP_NS)
    if len(time) < 3 or int((np.maximum.accumulate(time) - time).max()) <= least:
        return
    codes = keys.codes
    if codes is None:
        codes = np.unique(np.array(keys.names, np.object_), return_inverse=True)[1].astype(np.int32)
    order = np.argsort(codes, kind="stable")
    bounds = np.flatnonzero(np.diff(codes[order], prepend=-1, append=-1))
    for first, end in pairwise(bounds.tolist()):
        rows = order[first:end]
        rows = rows[time[rows] >= 0]
        own = time[rows]
        if not len(own) or int((np.maximum.accumulate(own) - own).max()) <= least:
            continue
        good = own[0]
        for i in range(1, len(rows)):
            row, there = int(rows[i]), own[i]
            if there > good + least and not 0 <= logged[row] < there + least:
                later = own[i + 1 :]
                back = later[(later >= good) & (later < there - least)]
                if len(back):
                    yield row, int(back[0])
                    continue
            good = max(good, there)
