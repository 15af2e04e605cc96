"""Times without a record: inside a segment, between segments, and covered by another partition."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.core.types import Partition
from storage.history import parquet
from storage.history.coverage import Coverage, coverage_of, without_records
from storage.history.segments import Segment, SegmentStore, folder_of

SECOND = 10**9
MINUTE = 60 * SECOND


def write(store: SegmentStore, partition: int, times_s: np.ndarray) -> Segment:
    """Write a segment of one series with a point at each time."""
    time, rows = times_s.astype(np.int64) * SECOND, len(times_s)
    nothing = {"flag": np.zeros(rows, bool)}
    values = {"value": np.zeros((rows, 1), np.float32)}
    table = parquet.rows(
        np.arange(rows), time, np.zeros(rows, np.int32), parquet.texts(["a"]), ["v"], nothing, values
    )
    folder = folder_of("plant", Partition("x", partition), "log")
    segment = Segment(folder, int(times_s[0]), int(times_s[-1]) + 1, 1, int(time[0]), int(time[-1]), 1)
    store.write(segment, parquet.encode(table))
    return segment


def gaps(store: SegmentStore, segments: list[Segment], least_ns: int = 0) -> list[tuple[int, int]]:
    found = without_records(segments, lambda one: coverage_of(store, one), 0, least_ns)
    return [(begin // SECOND, end // SECOND) for begin, end in found]


def test_a_time_without_a_record_of_any_partition_is_found(tmp_path: Path) -> None:
    store = SegmentStore(str(tmp_path))
    silent = np.r_[0:1000, 2000:3000]
    one = write(store, 0, silent)
    assert gaps(store, [one]) == [(999, 2000)]
    later = write(store, 0, np.arange(4000, 5000))
    assert gaps(store, [later, one]) == [(999, 2000), (2999, 4000)]
    other = write(store, 1, np.arange(0, 2500))
    assert gaps(store, [one, later, other]) == [(2999, 4000)]
    assert gaps(store, [one, later, other], least_ns=20 * MINUTE) == []


def test_the_usual_distance_of_records_is_no_gap(tmp_path: Path) -> None:
    store = SegmentStore(str(tmp_path))
    hourly = np.arange(100) * 3600
    assert gaps(store, [write(store, 0, hourly)]) == []
    missing = np.r_[hourly[:50], hourly[60:]]
    assert gaps(store, [write(store, 1, missing)]) == [(49 * 3600, 60 * 3600)]


def test_a_segment_that_is_damaged_or_not_read_counts_as_one_stretch(tmp_path: Path) -> None:
    store = SegmentStore(str(tmp_path))
    one = write(store, 0, np.r_[0:1000, 2000:3000])
    assert without_records([one], lambda _: None, 0, 0) == []
    (tmp_path / one.path).write_bytes(b"no parquet")
    whole = [(0, 2999 * SECOND)]
    assert coverage_of(store, one) == Coverage(whole, 30 * SECOND)
