"""Merging of small segments into large ones, sorted by series so that one series is read alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

from storage.history import parquet
from storage.history.segments import (
    AnySegment,
    DamagedSegment,
    Segment,
    SegmentStore,
    overlap,
    spanning,
    valid,
)

TARGET_BYTES = 16 << 20
MIN_SEGMENTS_TO_MERGE = 4
DAY_SECONDS = 86_400


def compact(store: SegmentStore, folder: str, below: int) -> int:
    """Merge segments of one log that end by ``below``, and delete superseded ones.

    ``below`` is the offset of a committed snapshot: segments before it are never written again. A merged file
    is complete before its parts are deleted and supersedes them, so that a crash in between has no effect.
    A damaged segment stays as it is. Return the number of files fewer.
    """
    listed = [segment for segment in store.list(folder) if segment.next <= below]
    current = valid(listed)
    superseded = set(listed).difference(current)
    for segment in superseded:
        store.delete(segment)
    fewer = len(superseded)
    for run in _runs(current):
        while group := worthwhile(run):
            try:
                fewer += _merge(store, group)
                break
            except DamagedSegment as error:
                run = run[run.index(error.segment) + 1 :]
    return fewer


def _runs(segments: Iterable[Segment]) -> Iterator[list[Segment]]:
    """Yield runs of adjacent small segments of one day, so that retention by age stays exact to a day."""
    run: list[Segment] = []
    for segment in segments:
        if segment.size_bytes >= TARGET_BYTES // 2:
            continue
        if run and (
            run[-1].next != segment.first
            or run[-1].written_s // DAY_SECONDS != segment.written_s // DAY_SECONDS
        ):
            yield run
            run = []
        run.append(segment)
    yield run


def worthwhile(run: list[AnySegment]) -> list[AnySegment]:
    """Return the longest part of a run with similar sizes.

    Otherwise a large file would be written again for every few small ones.
    """
    for start in range(len(run) - MIN_SEGMENTS_TO_MERGE + 1):
        sizes = list(accumulate(segment.size_bytes for segment in run[start:]))
        group = run[start : start + bisect_right(sizes, TARGET_BYTES)]
        if (
            len(group) >= MIN_SEGMENTS_TO_MERGE
            and 2 * max(segment.size_bytes for segment in group) <= sizes[len(group) - 1]
        ):
            return group
    return []


def _merge(store: SegmentStore, group: list[Segment]) -> int:
    try:
        tables = [store.read(segment) for segment in group]
    except FileNotFoundError:
        return 0  # a former owner was at it
    merged = spanning(group)
    store.write(merged, parquet.encode(parquet.ordered(parquet.joined(tables))))
    parts = {merged.path, *(segment.path for segment in group)}
    listed = {one.path: one for one in store.list(merged.folder)}
    if any(overlap(merged, one) for path, one in listed.items() if path not in parts):
        # Another process merges some of them otherwise, and the two files would overlap. Both may end here.
        # Retention of a third process deletes parts that a merged file supersedes: those are written again.
        for segment, table in zip(group, tables, strict=True):
            if segment.path not in listed:
                store.write(segment, parquet.encode(table))
        store.delete(merged)
        return 0
    for segment in group:
        store.delete(segment)
    return len(group) - 1
