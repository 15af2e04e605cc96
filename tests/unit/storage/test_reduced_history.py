"""Charts of long ranges: extremes of recorded points, read once."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.types import Partition
from storage.history import parquet
from storage.history.reader import HistoryReader
from storage.history.reduced import (
    BUCKET_NS,
    ReducedHistory,
    View,
    columns_of,
    pixel_starts,
    reduced_rows,
)
from storage.history.segments import SegmentStore
from storage.history.writer import HistoryWriter

SECOND = 10**9
START = 1_700_000_000 * SECOND
ROWS, SEGMENTS = 3_000, 4
CHANNELS = ("v", "w")


@pytest.fixture
def folder(tmp_path) -> str:
    """Record two series at 1 s in four segments, with a gap and a model that changes."""
    rng = np.random.default_rng(3)
    writer, partition = HistoryWriter(str(tmp_path), "plant"), Partition("x", 0)
    writer.open(partition, "log", 1, 0)
    for segment in range(SEGMENTS):
        at = np.arange(ROWS)
        time = START + (segment * ROWS + at) * SECOND
        values = rng.normal(20, 1, (ROWS, 2))
        values[5, 1] = np.nan
        missed = np.zeros(ROWS, np.int32)
        missed[100] = 3 if segment == 1 else 0
        verdicts = {
            "flag": np.zeros(ROWS, bool),
            "missed": missed,
            "guard": np.full(ROWS, segment // 2, np.int8),
            "model": parquet.constant(f"m{segment // 2}", ROWS),
        }
        channels = dict.fromkeys(("value", "expected", "lower", "upper"), values)
        model = verdicts.pop("model")
        names = (at % 2).astype(np.int32)
        table = parquet.rows(
            segment * ROWS + at, time, names, parquet.texts(["a", "b"]), CHANNELS, verdicts, channels
        )
        table = table.append_column("model", model)
        writer.append(partition, segment * ROWS, (segment + 1) * ROWS, table)
        writer.barrier(partition, (segment + 1) * ROWS)
    writer.close()
    return str(tmp_path)


def view(pixels: int = 20, since: int = 0, until: int = ROWS * SEGMENTS) -> View:
    return View("plant", "a", CHANNELS, START + since * SECOND, START + until * SECOND, pixels)


def exact(folder: str, one: View):
    table = HistoryReader(folder).read(
        "plant", series="a", since_ns=one.since_ns, until_ns=one.until_ns, columns=columns_of(CHANNELS)
    )
    return reduced_rows(table, CHANNELS, pixel_starts(table.column("time").to_numpy(), one.pixels))


def test_extremes_counts_runs_and_gaps_are_those_of_the_points(folder):
    found, points = ReducedHistory().read(folder, view()), exact(folder, view(pixels=10**6))
    assert len(found.time) == 20
    assert found.rows == points.rows == ROWS * SEGMENTS // 2
    for channel in CHANNELS:
        assert found.extremes[f"min:{channel}"].min() == np.nanmin(points.extremes[f"min:{channel}"])
        assert found.extremes[f"max:{channel}"].max() == np.nanmax(points.extremes[f"max:{channel}"])
    assert found.runs == points.runs
    assert [run.value for run in found.runs["model"]] == ["m0", "m1"]
    assert found.gaps == points.gaps
    assert len(found.gaps) == 1


def test_each_pixel_has_the_extremes_of_its_buckets(folder):
    one = view(pixels=10**6)
    found, points = ReducedHistory().read(folder, one), exact(folder, one)
    ours, theirs = found.time // BUCKET_NS, points.time // BUCKET_NS  # two segments share a bucket
    assert (np.unique(ours) == np.unique(theirs)).all()
    for bucket in np.unique(ours):
        highest = points.extremes["max:v"][theirs == bucket].max()
        assert found.extremes["max:v"][ours == bucket].max() == highest


def test_a_part_of_the_range_has_only_its_buckets(folder):
    found = ReducedHistory().read(folder, view(since=3_000, until=6_000))
    assert found.time[0] >= START + 3_000 * SECOND - BUCKET_NS
    assert found.time[-1] < START + 6_000 * SECOND
    assert 1_500 <= found.rows <= 1_500 + 2 * BUCKET_NS // SECOND
    assert ReducedHistory().read(folder, view(since=50_000, until=60_000)).rows == 0


def test_a_segment_is_read_once_and_the_oldest_leave_memory(folder, monkeypatch):
    reads = []
    read = SegmentStore.read
    monkeypatch.setattr(
        SegmentStore, "read", lambda self, one, **given: reads.append(one.path) or read(self, one, **given)
    )
    history = ReducedHistory()
    first, second = history.read(folder, view()), history.read(folder, view())
    assert len(reads) == SEGMENTS
    assert (first.time == second.time).all()
    small = ReducedHistory(max_bytes=1)
    small.read(folder, view())
    assert len(small._kept) == 1


def test_a_series_without_points_is_empty(folder):
    assert ReducedHistory().read(folder, view()._replace(series="c")).rows == 0
