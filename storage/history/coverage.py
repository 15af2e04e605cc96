"""Times without any record of a stream, from its recorded history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from storage.history.segments import DamagedSegment, Segment, SegmentStore

#: Shortest time without a record that counts as one.
MIN_GAP_NS = 30 * 10**9
#: Multiple of the longest usual distance of two records, from which a time counts as without records.
GAP_DISTANCES = 4
#: Share of the distances that are usual.
_USUAL_SHARE = 0.95

Stretch = tuple[int, int]


class Coverage(NamedTuple):
    """Stretches of a segment with records.

    A stretch is (first, last) in ns; ``least_gap_ns`` is the shortest time between two.
    """

    stretches: list[Stretch]
    least_gap_ns: int


def coverage_of(store: SegmentStore, segment: Segment) -> Coverage:
    """Return the stretches with records of any series of a segment.

    A damaged segment counts as one stretch.
    """
    whole = Coverage([(segment.oldest_ns, segment.newest_ns)], MIN_GAP_NS)
    try:
        table = store.read(segment, columns=["series", "time"])
    except DamagedSegment:
        return whole
    time = np.unique(table.column("time").to_numpy().astype(np.int64))
    if len(time) < 2:
        return whole
    distance = np.diff(time)
    usual = np.quantile(distance, _USUAL_SHARE, method="higher")
    least = max(MIN_GAP_NS, GAP_DISTANCES * int(usual))
    at = np.flatnonzero(distance > least)
    first, last = time[np.r_[0, at + 1]], time[np.r_[at, len(time) - 1]]
    return Coverage(list(zip(first.tolist(), last.tolist(), strict=True)), least)


def without_records(
    segments: Sequence[Segment], read: Callable[[Segment], Coverage | None], since_ns: int, least_ns: int
) -> list[Stretch]:
    """Return the times in which no series of a stream has a record, in order.

    Args:
        segments: Valid segments of all partitions.
        read: Returns the coverage of a segment; None for one that is not to be read, which counts as one
            stretch.
        since_ns: Earliest end.
        least_ns: Shortest time.
    """
    stretches: list[Stretch] = []
    for segment in segments:
        if segment.newest_ns < since_ns:
            continue
        if (found := read(segment)) is None:
            stretches.append((segment.oldest_ns, segment.newest_ns))
            continue
        stretches += found.stretches
        least_ns = max(least_ns, found.least_gap_ns)
    gaps: list[Stretch] = []
    until = None
    for first, last in sorted(stretches):
        if until is not None and first - until > least_ns:
            gaps.append((until, first))
        until = last if until is None else max(until, last)
    return [one for one in gaps if one[1] >= since_ns]
