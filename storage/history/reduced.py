"""Recorded points of one series, reduced to extremes, for charts of any length.

A chart of a year at one point a second has 31 million points. The owner of a partition writes reductions of
its segments (``reduction_files``). Newer segments, and those without a reduction, are reduced here to buckets
of ``BUCKET_NS``. A file never changes: what was read stays in memory, and the next look reads no file.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.history.reduction_files import (
    BUCKETS_SECONDS,
    PARTS,
    ReductionFile,
    bucket_starts,
    current,
    extremes_of,
    listed,
    numbers,
    read,
    reduced,
)
from storage.history.segments import DamagedSegment, Segment, SegmentStore, folder_of, valid

log = logging.getLogger(__name__)

#: Time of one bucket: less than a pixel of a chart of ``MIN_REDUCED_NS``.
BUCKET_NS = BUCKETS_SECONDS[0] * 10**9
#: Shorter ranges are read point by point.
MIN_REDUCED_NS = 4 * 86_400 * 10**9
MAX_KEPT_BYTES = 256 << 20
MAX_READ_ATTEMPTS = 5
_RUN_COLUMNS = ("model", "guard")
_SECOND_NS = 10**9


class View(NamedTuple):
    """Chart of a series without its end, ``pixels`` wide."""

    stream: str
    series: str
    channels: tuple[str, ...]
    since_ns: int
    until_ns: int
    pixels: int

    @property
    def bucket_s(self) -> int:
        """Longest bucket that is not longer than a pixel, or the shortest."""
        pixel_s = (self.until_ns - self.since_ns) / self.pixels / _SECOND_NS
        return max((one for one in BUCKETS_SECONDS if one <= pixel_s), default=BUCKETS_SECONDS[0])


class Run(NamedTuple):
    """Stretch of rows with the same value of a column; times in ns."""

    value: Any
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class ReducedPoints:
    """B buckets of points.

    time (B,) is that of the first point of each bucket in ns, counts (B,) its number of points. ``extremes``
    has min, max, expected, lower and upper of each channel (``min:temperature``), each (B,). ``runs`` has the
    stretches of ``model`` and ``guard``. ``gaps`` are pairs of times between which points are missing.
    """

    time: NDArray[np.int64]
    counts: NDArray[np.int64]
    extremes: dict[str, NDArray[np.float32]]
    runs: dict[str, list[Run]]
    gaps: list[tuple[int, int]]

    @property
    def rows(self) -> int:
        """Number of points."""
        return int(self.counts.sum())

    @property
    def size_bytes(self) -> int:
        """Memory of the arrays."""
        return 2 * self.time.nbytes + sum(one.nbytes for one in self.extremes.values()) + 1000


def columns_of(channels: Sequence[str]) -> list[str]:
    """Return the stored columns that a reduction reads."""
    return [
        *("guard", "missed", "model"),
        *(f"{stored}:{one}" for stored in ("value", "expected", "lower", "upper") for one in channels),
    ]


def reduced_rows(
    table: pa.Table, channels: Sequence[str], starts: NDArray[np.intp] | None = None
) -> ReducedPoints:
    """Return the extremes of rows of one series, in order of time.

    Args:
        table: The rows.
        channels: Names of the channels.
        starts: First row of each bucket (default: those of ``BUCKET_NS``).
    """
    time = table.column("time").to_numpy().astype(np.int64)
    if starts is None:
        starts = bucket_starts(time, BUCKET_NS)
    extremes = extremes_of(table, channels, starts)
    missed = numbers(table, "missed")
    at = np.flatnonzero(missed[1:] > 0)
    gaps = list(zip(time[at].tolist(), time[at + 1].tolist(), strict=True))
    runs = {name: _runs(table, name, time) for name in _RUN_COLUMNS}
    counts = np.diff(starts, append=table.num_rows)
    return ReducedPoints(time[starts], counts, extremes, runs, gaps)


def stored_points(table: pa.Table, channels: Sequence[str]) -> ReducedPoints:
    """Return the buckets of one series that a file of reductions has."""
    time = table.column("time").to_numpy().astype(np.int64)
    extremes = {
        name: numbers(table, name) for name in (f"{part}:{one}" for one in channels for part in PARTS)
    }
    begin, end = (table.column(name).to_numpy() for name in ("gap_from", "gap_to"))
    at = np.flatnonzero(end > 0)
    gaps = list(zip(begin[at].tolist(), end[at].tolist(), strict=True))
    runs = {name: _runs(table, name, time) for name in _RUN_COLUMNS}
    return ReducedPoints(time, table.column("count").to_numpy().astype(np.int64), extremes, runs, gaps)


def joined(parts: Sequence[ReducedPoints], view: View) -> ReducedPoints:
    """Return one reduction of those of files."""
    if not parts:
        return nothing()
    time = np.concatenate([one.time for one in parts])
    order = np.argsort(time, kind="stable")
    order = order[(time[order] >= view.since_ns - view.bucket_s * _SECOND_NS) & (time[order] < view.until_ns)]
    starts = pixel_starts(time[order], view.pixels)
    extremes = {
        name: reduced(
            PARTS[name.partition(":")[0]][1],
            np.concatenate([one.extremes[name] for one in parts])[order],
            starts,
        )
        for name in parts[0].extremes
    }
    counts = np.concatenate([one.counts for one in parts])[order]
    found = [one for one in parts if one.time[-1] >= view.since_ns and one.time[0] < view.until_ns]
    runs = {name: _joined_runs([run for one in found for run in one.runs[name]]) for name in _RUN_COLUMNS}
    gaps = sorted(gap for one in found for gap in one.gaps)
    return ReducedPoints(
        time[order][starts], np.add.reduceat(counts, starts) if len(starts) else counts, extremes, runs, gaps
    )


def nothing() -> ReducedPoints:
    """Return the reduction of no points."""
    empty = np.empty(0, np.int64)
    return ReducedPoints(empty, empty, {}, {name: [] for name in _RUN_COLUMNS}, [])


def in_order(table: pa.Table) -> pa.Table:
    """Return rows of one series by time; those of most segments are."""
    return table if (np.diff(table.column("time").to_numpy()) >= 0).all() else table.sort_by("time")


def pixel_starts(time: NDArray[np.int64], pixels: int) -> NDArray[np.intp]:
    """Return the first row of each pixel; all rows if there are at most two per pixel."""
    if len(time) <= 2 * pixels:
        return np.arange(len(time))
    pixel = (time - time[0]) // max(1, -(-int(time[-1] - time[0] + 1) // pixels))
    return np.flatnonzero(np.diff(pixel, prepend=-1))


class ReducedHistory:
    """Reader of reductions that stay in memory; threads may share it."""

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        """Keep nothing yet."""
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, ...], ReducedPoints] = OrderedDict()
        self._bytes = 0

    def read(self, path: str, view: View) -> ReducedPoints:
        """Return the extremes of a series for a chart.

        Args:
            path: Folder or URL of the recorded history.
            view: The chart.

        Raises:
            OSError: The history cannot be read.
        """
        store = SegmentStore(path)
        for _ in range(MAX_READ_ATTEMPTS):
            segments, files = listed(store, folder_of(view.stream))
            try:
                parts = self._parts(store, valid(segments), files, view)
            except FileNotFoundError:
                continue  # merged or pruned since it was listed
            return joined([one for one in parts if len(one.time)], view)
        raise FileNotFoundError(f"the history of stream {view.stream} changes faster than it can be read")

    def _parts(
        self, store: SegmentStore, segments: list[Segment], files: list[ReductionFile], view: View
    ) -> list[ReducedPoints]:
        """Return the points of reductions, and of segments without one."""
        found, reduced_segments = [], set[Segment]()
        for file, inside in current(files, segments, view.bucket_s).items():
            if not file.rows:
                continue
            if _overlaps(file, view):
                if (part := self._of_file(store, file, inside[0].first, view)) is None:
                    continue
                found.append(part)
            reduced_segments.update(inside)
        others = [one for one in segments if one not in reduced_segments and _overlaps(one, view)]
        return found + [self._of_segment(store, one, view) for one in others]

    def _of_file(
        self, store: SegmentStore, file: ReductionFile, oldest_offset: int, view: View
    ) -> ReducedPoints | None:
        """Return the buckets of segments that are left; None for a damaged file."""

        def make() -> ReducedPoints:
            table = read(store, file, view.series)
            table = table.filter(pc.greater_equal(table.column("offset"), oldest_offset))
            return stored_points(table, view.channels) if table.num_rows else nothing()

        try:
            return self._kept_or(
                make, (store.root, file.path, str(oldest_offset), view.series, *view.channels)
            )
        except DamagedSegment as error:
            log.warning("a damaged reduction is not used; delete the file, it is written again: %s", error)
            return None

    def _of_segment(self, store: SegmentStore, segment: Segment, view: View) -> ReducedPoints:
        def make() -> ReducedPoints:
            columns = ["series", "time", *columns_of(view.channels)]
            table = store.read(segment, series=[view.series], columns=columns)
            return reduced_rows(in_order(table), view.channels) if table.num_rows else nothing()

        try:
            return self._kept_or(make, (store.root, segment.path, view.series, *view.channels))
        except DamagedSegment:
            return nothing()

    def _kept_or(self, make: Callable[[], ReducedPoints], key: tuple[str, ...]) -> ReducedPoints:
        """Return what is kept under a key, or make and keep it."""
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return found
        made = make()
        with self._lock:
            self._kept[key] = made
            self._bytes += made.size_bytes
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].size_bytes
        return made


def _overlaps(one: Segment, view: View) -> bool:
    return one.newest_ns >= view.since_ns and one.oldest_ns < view.until_ns


def _runs(table: pa.Table, name: str, time: NDArray[np.int64]) -> list[Run]:
    if name not in table.column_names or not len(time):
        return []
    values = table.column(name).combine_chunks()
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    codes = values.indices.fill_null(-1).to_numpy()
    words = [*values.dictionary.to_pylist(), None]
    first = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    last = np.r_[first[1:], len(codes)] - 1
    return [Run(words[codes[a]], int(time[a]), int(time[b])) for a, b in zip(first, last, strict=True)]


def _joined_runs(runs: list[Run]) -> list[Run]:
    """Return the runs in order of time; neighbours of equal values are one."""
    found: list[Run] = []
    for run in sorted(runs, key=lambda one: one.first_ns):
        if found and found[-1].value == run.value:
            found[-1] = found[-1]._replace(last_ns=max(run.last_ns, found[-1].last_ns))
        else:
            found.append(run)
    return found
