"""Recorded points of one series, reduced to extremes, for charts of any length.

A chart of a year at one point a second has 31 million points. A segment never changes, so its points are
reduced once to buckets of ``BUCKET_NS``, which stay in memory: the next look at the same time reads no file.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.history import parquet
from storage.history.segments import DamagedSegment, Segment, SegmentStore, folder_of, valid

#: Time of one bucket: less than a pixel of a chart of ``MIN_REDUCED_NS``.
BUCKET_NS = 120 * 10**9
#: Shorter ranges are read point by point.
MIN_REDUCED_NS = 4 * 86_400 * 10**9
MAX_KEPT_BYTES = 256 << 20
MAX_READ_ATTEMPTS = 5
#: Column of the reduction → (stored column, function of a bucket).
_PARTS = {
    "min": ("value", np.fmin),
    "max": ("value", np.fmax),
    "expected": ("expected", np.fmin),
    "lower": ("lower", np.fmin),
    "upper": ("upper", np.fmax),
}

_RUN_COLUMNS = ("model", "guard")


class View(NamedTuple):
    """Chart of a series without its end, ``pixels`` wide."""

    stream: str
    series: str
    channels: tuple[str, ...]
    since_ns: int
    until_ns: int
    pixels: int


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
        starts = np.flatnonzero(np.diff(time // BUCKET_NS, prepend=-1))
    extremes = {
        f"{part}:{channel}": _reduced(function, _numbers(table, f"{stored}:{channel}"), starts)
        for channel in channels
        for part, (stored, function) in _PARTS.items()
    }
    missed = _numbers(table, "missed")
    at = np.flatnonzero(missed[1:] > 0)
    gaps = list(zip(time[at].tolist(), time[at + 1].tolist(), strict=True))
    runs = {name: _runs(table, name, time) for name in _RUN_COLUMNS}
    counts = np.diff(starts, append=table.num_rows)
    return ReducedPoints(time[starts], counts, extremes, runs, gaps)


def joined(parts: Sequence[ReducedPoints], view: View) -> ReducedPoints:
    """Return one reduction of those of segments."""
    if not parts:
        return nothing()
    time = np.concatenate([one.time for one in parts])
    order = np.argsort(time, kind="stable")
    order = order[(time[order] >= view.since_ns - BUCKET_NS) & (time[order] < view.until_ns)]
    starts = pixel_starts(time[order], view.pixels)
    extremes = {
        name: _reduced(
            _PARTS[name.partition(":")[0]][1],
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
            listed = [
                one
                for one in valid(store.list(folder_of(view.stream)))
                if one.newest_ns >= view.since_ns and one.oldest_ns < view.until_ns
            ]
            try:
                parts = [self._of_segment(store, one, view) for one in listed]
            except FileNotFoundError:
                continue  # merged or pruned since it was listed
            return joined([one for one in parts if len(one.time)], view)
        raise FileNotFoundError(f"the history of stream {view.stream} changes faster than it can be read")

    def _of_segment(self, store: SegmentStore, segment: Segment, view: View) -> ReducedPoints:
        key = (store.root, segment.path, view.series, *view.channels)
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return found
        try:
            columns = ["series", "time", *columns_of(view.channels)]
            table = store.read(segment, series=[view.series], columns=columns)
        except DamagedSegment:
            return nothing()
        made = reduced_rows(in_order(table), view.channels) if table.num_rows else nothing()
        with self._lock:
            self._kept[key] = made
            self._bytes += made.size_bytes
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].size_bytes
        return made


def _numbers(table: pa.Table, name: str) -> NDArray[np.float32]:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan, np.float32)
    values = np.asarray(table.column(name).to_numpy(), np.float32)
    return np.where(np.abs(values) < parquet.UNBOUNDED, values, np.float32(np.nan))


def _reduced(
    function: np.ufunc, values: NDArray[np.float32], starts: NDArray[np.intp]
) -> NDArray[np.float32]:
    found: NDArray[np.float32] = function.reduceat(values, starts) if len(starts) else values[:0]
    return found


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
