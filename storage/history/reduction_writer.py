"""Writing of reductions: once for final segments, then merged as they grow old."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

import pyarrow as pa

from storage.history import parquet, reduction_files
from storage.history.compaction import DAY_SECONDS, TARGET_BYTES, worthwhile
from storage.history.reduction_files import BUCKETS_SECONDS, MIN_POINTS_PER_BUCKET, ReductionFile
from storage.history.segments import DamagedSegment, Segment, SegmentStore, spanning, valid

#: Segments that one call reads; the next call reads more.
MAX_SEGMENTS_PER_CALL = 16
#: Files of one such period are merged, so that a reduction outlives its oldest segments by at most that time.
PERIOD_SECONDS = 28 * DAY_SECONDS


def reduce_settled(store: SegmentStore, folder: str, below: int, now_s: float) -> bool:
    """Write the reductions of final segments of one log, and merge small ones.

    A segment is final if it ends by ``below`` and is merged no more: it is large, or of an earlier day.

    Args:
        store: The recorded history.
        folder: Folder of the log.
        below: Offset of a committed snapshot.
        now_s: Wall clock.

    Returns:
        True if there are further segments to reduce.
    """
    segments, files = reduction_files.listed(store, folder)
    segments = valid([one for one in segments if one.next <= below])
    files = _delete_useless(store, files, segments)
    covered = [set[Segment]() for _ in BUCKETS_SECONDS]
    for number, bucket_s in enumerate(BUCKETS_SECONDS):
        for inside in reduction_files.current(files, segments, bucket_s).values():
            covered[number].update(inside)
    missing = [one for one in segments if _is_final(one, now_s) and not all(one in some for some in covered)]
    for run in _runs(missing[:MAX_SEGMENTS_PER_CALL]):
        files += _reduce(store, run)
    for bucket_s in BUCKETS_SECONDS:
        _merge_small(store, [one for one in files if one.bucket_s == bucket_s])
    return len(missing) > MAX_SEGMENTS_PER_CALL


def _is_final(segment: Segment, now_s: float) -> bool:
    is_old = segment.written_s // DAY_SECONDS < int(now_s) // DAY_SECONDS
    return is_old or segment.size_bytes >= TARGET_BYTES // 2


def _delete_useless(
    store: SegmentStore, files: Sequence[ReductionFile], segments: Sequence[Segment]
) -> list[ReductionFile]:
    """Delete files without segments and merged ones; return the others."""
    kept = [one for bucket_s in BUCKETS_SECONDS for one in reduction_files.current(files, segments, bucket_s)]
    for file in set(files).difference(kept):
        store.delete(file)
    return kept


def _runs(found: Sequence[Segment]) -> list[list[Segment]]:
    """Return runs of adjacent segments of one period."""
    runs: list[list[Segment]] = []
    for one in found:
        last = runs[-1][-1] if runs else None
        if last is not None and last.next == one.first and _period(last) == _period(one):
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _period(one: Segment) -> int:
    return one.written_s // PERIOD_SECONDS


def _reduce(store: SegmentStore, run: Sequence[Segment]) -> list[ReductionFile]:
    """Write the reductions of adjacent segments; a damaged one is left out."""
    read: list[tuple[Segment, int, list[pa.Table] | None]] = []
    for segment in run:
        try:
            table = store.read(segment)
        except DamagedSegment:
            read.append((segment, 0, None))
        except FileNotFoundError:  # a former owner was at it
            return []
        else:
            made = [reduction_files.reduce_rows(table, bucket_s) for bucket_s in BUCKETS_SECONDS]
            read.append((segment, table.num_rows, made))
    files = []
    for is_whole, group in groupby(read, lambda one: one[2] is not None):
        some = list(group)
        for number, bucket_s in enumerate(BUCKETS_SECONDS if is_whole else ()):
            table = parquet.joined([made[number] for _, _, made in some if made is not None])
            if table.num_rows * MIN_POINTS_PER_BUCKET > sum(rows for _, rows, _ in some):
                table = table.slice(0, 0)
            files.append(_write(store, [segment for segment, _, _ in some], bucket_s, table))
    return files


def _write(store: SegmentStore, parts: Sequence[Segment], bucket_s: int, table: pa.Table) -> ReductionFile:
    """Write the file that stands for adjacent parts."""
    data = reduction_files.encode(table)
    own = {"size_bytes": len(data), "bucket_s": bucket_s, "rows": table.num_rows}
    file = ReductionFile(**asdict(spanning(parts)) | own)
    store.write(file, data)
    return file


def _merge_small(store: SegmentStore, files: Sequence[ReductionFile]) -> None:
    """Merge adjacent small files of one period."""
    small = [one for one in valid(files) if one.size_bytes < TARGET_BYTES // 2]
    for _, same in groupby(small, lambda one: (_period(one), one.rows > 0)):
        run: list[ReductionFile] = []
        for file in [*same, None]:
            if file is not None and (not run or run[-1].next == file.first):
                run.append(file)
                continue
            if group := worthwhile(run):
                _merge(store, group)
            run = [] if file is None else [file]


def _merge(store: SegmentStore, group: Sequence[ReductionFile]) -> None:
    tables = []
    for file in group:
        try:
            tables.append(reduction_files.read(store, file))
        except FileNotFoundError:
            return
        except DamagedSegment:
            store.delete(file)  # it is written again from its segments
            return
    merged = _write(store, group, group[0].bucket_s, parquet.joined(tables))
    for file in group:
        if file.path != merged.path:
            store.delete(file)
