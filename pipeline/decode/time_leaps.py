"""Points of a clock that was ahead for a moment.

A clock that jumps ahead and comes back leaves points that all later ones of the series are late for. The
log's own time and the present show that of a time in the future. In a log of the past, only the other points
do: a point leaps if its series, later in the same batch, goes on from before it, and the other series have
not come that far. A leap of a day or more needs no other series.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.core.durations import SECOND_NS
from pipeline.decode.columns import SeriesKeys

#: A smaller way back can be that of points out of order, if no other series is there to compare with.
MIN_LEAP_ALONE_NS = 86_400 * SECOND_NS
NEVER_NS = np.iinfo(np.int64).min


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
    usable = time >= 0
    if len(time) < 3 or not usable.any():
        return
    later = np.minimum.accumulate(np.where(usable, time, np.iinfo(np.int64).max)[::-1])[::-1]
    trusted = (logged >= 0) & (logged < time + least_ns)
    ahead = usable & ~trusted & (later < time - least_ns)
    if not ahead.any():
        return
    codes = keys.codes
    if codes is None:
        codes = np.unique(np.array(keys.names, np.object_), return_inverse=True)[1].astype(np.int32)
    for code in np.unique(codes[ahead]).tolist():
        own = usable & (codes == code)
        yield from _leaps_of(
            np.flatnonzero(own), np.where(usable & ~own, time, NEVER_NS), time, ahead, least_ns
        )


def _leaps_of(
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    time: NDArray[np.int64],
    ahead: NDArray[np.bool_],
    least_ns: int,
) -> Iterator[tuple[int, int]]:
    """Yield the leaping points of the series in ``rows``; ``others``: other times."""
    reached = np.maximum.accumulate(others)
    own = time[rows]
    good = NEVER_NS
    for i, row in enumerate(rows.tolist()):
        there = int(own[i])
        if ahead[row] and (good == NEVER_NS or there > good + least_ns):
            back = np.flatnonzero((own[i + 1 :] >= good) & (own[i + 1 :] < there - least_ns))
            if len(back):
                came_back = int(rows[i + 1 + back[0]])
                compared = int(reached[came_back])
                alone = compared == NEVER_NS and good != NEVER_NS and there > good + MIN_LEAP_ALONE_NS
                if alone or (compared != NEVER_NS and compared < there - least_ns):
                    yield row, int(time[came_back])
                    continue
        good = max(good, there)
