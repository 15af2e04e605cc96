"""Reductions on disk: extremes of points by bucket, for charts of long ranges.

    <root>/<stream>/<topic>/<partition>/<log>/
        <first>-<next>.e<epoch>.t<oldest>_<newest>.w<written>.r<version>-<bucket seconds>s-<rows>.parquet

A file has the buckets of every point of the offsets [first, next), by series and time, at one length of
bucket. The owner of a partition writes it from segments that are final. It holds nothing that the segments
do not hold: it may be deleted at any time, and is written again from them. A file of another version is
ignored. ``rows`` is 0 where reducing does not pay, because a bucket has few points: the segments are read.

Columns: ``offset`` and ``time`` of the first point of a bucket, ``series``, ``count`` (points), ``model`` and
``guard`` of the first point, ``gap_from`` and ``gap_to`` (the longest gap that ended in the bucket, 0 for
none), and ``min``, ``max``, ``expected``, ``lower`` and ``upper`` of each channel (``min:temperature``).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.history import parquet
from storage.history.segments import Segment, SegmentStore, overlap, valid

VERSION = 1
#: Lengths of the buckets, the shortest first: charts of days, and of months.
BUCKETS_SECONDS = (120, 1800)
#: A bucket of fewer points on average is not worth a file.
MIN_POINTS_PER_BUCKET = 8
#: A chart of one series reads whole row groups.
_ROWS_PER_ROW_GROUP = 1 << 13
_SECOND_NS = 10**9
_NAME = re.compile(r"(\d+)-(\d+)\.e(\d+)\.t(-?\d+)_(-?\d+)\.w(\d+)\.r(\d+)-(\d+)s-(\d+)\.parquet")
#: Column of a reduction → (stored column, function of a bucket).
PARTS = {
    "min": ("value", np.fmin),
    "max": ("value", np.fmax),
    "expected": ("expected", np.fmin),
    "lower": ("lower", np.fmin),
    "upper": ("upper", np.fmax),
}


@dataclass(frozen=True, slots=True)
class ReductionFile(Segment):
    """File of reduced points; its offsets and times are those of its segments."""

    bucket_s: int = 0
    rows: int = 0
    version: int = VERSION

    @property
    def path(self) -> str:
        """Path below the root."""
        return (
            f"{self.folder}/{self.first}-{self.next}.e{self.epoch}.t{self.oldest_ns}_{self.newest_ns}"
            f".w{self.written_s}.r{self.version}-{self.bucket_s}s-{self.rows}.parquet"
        )

    @staticmethod
    def parse(path: str, size_bytes: int) -> ReductionFile | None:
        """Return the file of a path below the root, of any version; None for any other file."""
        folder, _, name = path.rpartition("/")
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        first, next_, epoch, oldest, newest, written, version, bucket, rows = map(int, found.groups())
        return ReductionFile(
            folder, first, next_, epoch, oldest, newest, written, size_bytes, bucket, rows, version
        )


def bucket_starts(time: NDArray[np.int64], bucket_ns: int) -> NDArray[np.intp]:
    """Return the first row of each bucket of rows in order of time."""
    return np.flatnonzero(np.diff(time // bucket_ns, prepend=-1))


def extremes_of(
    table: pa.Table, channels: Sequence[str], starts: NDArray[np.intp]
) -> dict[str, NDArray[np.float32]]:
    """Return the extremes of each channel between the rows ``starts``."""
    return {
        f"{part}:{channel}": reduced(function, numbers(table, f"{stored}:{channel}"), starts)
        for channel in channels
        for part, (stored, function) in PARTS.items()
    }


def numbers(table: pa.Table, name: str) -> NDArray[np.float32]:
    """Return a column of numbers; NaN where it has no value, or no end of an interval."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan, np.float32)
    values = np.asarray(table.column(name).to_numpy(), np.float32)
    return np.where(np.abs(values) < parquet.UNBOUNDED, values, np.float32(np.nan))


def reduced(function: np.ufunc, values: NDArray[np.float32], starts: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return ``function`` of the values between ``starts``."""
    found: NDArray[np.float32] = function.reduceat(values, starts) if len(starts) else values[:0]
    return found


def reduce_rows(table: pa.Table, bucket_s: int) -> pa.Table:
    """Return the buckets of the rows of a segment, as a file has them."""
    table = parquet.ordered(table)
    time = table.column("time").to_numpy().astype(np.int64)
    series = table.column("series").unify_dictionaries().combine_chunks()
    codes = series.indices.to_numpy()
    begins = np.r_[True, codes[1:] != codes[:-1]] if len(codes) else np.zeros(0, bool)
    changes = begins | (np.diff(time // (bucket_s * _SECOND_NS), prepend=-1) != 0)
    starts = np.flatnonzero(changes)
    rows = parquet.column(starts.astype(np.int64))
    channels = [name.partition(":")[2] for name in table.column_names if name.startswith("value:")]
    columns: dict[str, Any] = {
        "offset": table.column("offset").take(rows),
        "series": table.column("series").take(rows),
        "time": parquet.column(time[starts]),
        "count": parquet.column(np.diff(starts, append=len(time)).astype(np.int32)),
        **{name: table.column(name).take(rows) for name in ("model", "guard") if name in table.column_names},
        **dict(zip(("gap_from", "gap_to"), _gaps(table, time, begins, starts), strict=True)),
        **{name: parquet.column(values) for name, values in extremes_of(table, channels, starts).items()},
    }
    return pa.table(columns)


def _gaps(
    table: pa.Table, time: NDArray[np.int64], begins: NDArray[np.bool_], starts: NDArray[np.intp]
) -> tuple[pa.Array, pa.Array]:
    """Return begin and end of the longest gap that ends in each bucket; 0 for none."""
    missed = numbers(table, "missed")
    before = np.r_[0, time[:-1]] if len(time) else time
    length = np.where((missed > 0) & ~begins, time - before, 0)
    longest = np.maximum.reduceat(length, starts) if len(starts) else length
    bucket = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(time)))
    at = np.flatnonzero((length > 0) & (length == longest[bucket]))
    begin, end = np.zeros((2, len(starts)), np.int64)
    begin[bucket[at]], end[bucket[at]] = before[at], time[at]
    return parquet.column(begin), parquet.column(end)


def encode(table: pa.Table) -> bytes:
    """Return the bytes of a file of buckets, by series and time."""
    return parquet.encode(parquet.ordered(table), _ROWS_PER_ROW_GROUP)


def read(store: SegmentStore, file: ReductionFile, series: str | None = None) -> pa.Table:
    """Return the buckets of a file, of one series or of all.

    Raises FileNotFoundError if it was merged or deleted since it was listed, and DamagedSegment.
    """
    names = None if series is None else [series]
    return store.read(file, series=names)


def listed(store: SegmentStore, folder: str = "") -> tuple[list[Segment], list[ReductionFile]]:
    """Return the segments below a folder, and the files of reductions of any version."""
    found = list(store.files(folder))
    segments = [one for path, size in found if (one := Segment.parse(path, size)) is not None]
    return segments, [one for path, size in found if (one := ReductionFile.parse(path, size)) is not None]


def without_segments(files: Iterable[ReductionFile], segments: Iterable[Segment]) -> set[ReductionFile]:
    """Return the files none of whose segments is left, and those of other versions."""
    by_folder = _by_folder(segments)
    return {
        file
        for file in files
        if file.version != VERSION or not any(overlap(one, file) for one in by_folder.get(file.folder, []))
    }


def current(
    files: Iterable[ReductionFile], segments: Sequence[Segment], bucket_s: int
) -> dict[ReductionFile, list[Segment]]:
    """Return the files of one bucket length that stand for segments, and these.

    A file counts if it overlaps valid segments, and none of them in part.

    Args:
        files: Files of reductions.
        segments: Valid segments, in order.
        bucket_s: Length of a bucket.
    """
    by_folder = _by_folder(segments)
    found = {}
    for file in valid([one for one in files if (one.version, one.bucket_s) == (VERSION, bucket_s)]):
        inside = _overlapping(by_folder.get(file.folder, []), file)
        if inside and all(file.first <= one.first and one.next <= file.next for one in inside):
            found[file] = inside
    return found


def _overlapping(segments: Sequence[Segment], file: Segment) -> list[Segment]:
    """Return the segments, of those of one log in order, that overlap a file."""
    first = bisect_left(segments, file.first, key=attrgetter("next"))
    last = bisect_right(segments, file.next, key=attrgetter("first"))
    return [one for one in segments[first:last] if overlap(one, file)]


def _by_folder(segments: Iterable[Segment]) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = {}
    for segment in segments:
        found.setdefault(segment.folder, []).append(segment)
    return found
