"""Reductions on disk: the same charts as from the segments, written once, and gone with the segments."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.core.types import Partition
from storage.history import parquet, reduction_files
from storage.history.reduced import ReducedHistory, View
from storage.history.reduction_files import BUCKETS_SECONDS, ReductionFile
from storage.history.reduction_writer import MAX_SEGMENTS_PER_CALL, reduce_settled
from storage.history.segments import Segment, SegmentStore, folder_of
from storage.history.writer import HistoryWriter
from storage.retention import prune_history

SECOND, DAY = 10**9, 86_400
START = 1_700_000_000 // DAY * DAY
DAYS, ROWS = 20, 2000
LOG = folder_of("plant", Partition("x", 0), "log")
LATER = START + 1000 * DAY


def table_of(day: int, step: int = 10, rows: int = ROWS):
    """Return a day of two series, with a gap and a model that changes in the middle."""
    rng = np.random.default_rng(day)
    at = np.arange(2 * rows)
    values = rng.normal(20, 1, (2 * rows, 2))
    missed = np.zeros(2 * rows, np.int32)
    missed[7] = 3
    table = parquet.rows(
        day * 2 * rows + at,
        (START + day * DAY + (at // 2) * step) * SECOND,
        (at % 2).astype(np.int32),
        parquet.texts(["a", "b"]),
        ("v", "w"),
        {"flag": np.zeros(2 * rows, bool), "missed": missed, "guard": np.full(2 * rows, day // 10, np.int8)},
        dict.fromkeys(("value", "expected", "lower", "upper"), values.astype(np.float32)),
    )
    return table.append_column("model", parquet.constant(f"m{day // 10}", 2 * rows))


def write_day(store: SegmentStore, day: int, step: int = 10, rows: int = ROWS) -> Segment:
    written = START + day * DAY
    first = day * 2 * rows
    segment = Segment(
        LOG,
        first,
        first + 2 * rows,
        1,
        written * SECOND,
        (written + (rows - 1) * step) * SECOND,
        written,
    )
    store.write(segment, parquet.encode(table_of(day, step, rows)))
    return segment


@pytest.fixture
def store(tmp_path) -> SegmentStore:
    """Record twenty days at ten seconds in segments of a day."""
    found = SegmentStore(str(tmp_path))
    for day in range(DAYS):
        write_day(found, day)
    return found


def reduce_all(store: SegmentStore, below: int = 10**9) -> list[ReductionFile]:
    while reduce_settled(store, LOG, below, LATER):
        pass
    return reduction_files.listed(store)[1]


def view(series: str = "a", days: int = DAYS, pixels: int = 400) -> View:
    return View("plant", series, ("v", "w"), START * SECOND, (START + days * DAY) * SECOND, pixels)


def reads_of(monkeypatch) -> list[str]:
    paths, read = [], SegmentStore.read
    monkeypatch.setattr(
        SegmentStore, "read", lambda self, one, **given: paths.append(one.path) or read(self, one, **given)
    )
    return paths


@pytest.mark.parametrize("pixels", [50, 400, 4000])
def test_a_chart_from_reductions_is_that_of_the_points(store, monkeypatch, pixels):
    before = ReducedHistory().read(store.root, view("b", pixels=pixels))
    reduce_all(store)
    reads = reads_of(monkeypatch)
    found = ReducedHistory().read(store.root, view("b", pixels=pixels))
    assert reads
    assert all(ReductionFile.parse(path, 0) is not None for path in reads), "no segment is read"
    assert found.rows == before.rows == DAYS * ROWS
    for name, values in before.extremes.items():
        ours = found.extremes[name]
        best = np.nanmax if name.startswith(("max", "upper")) else np.nanmin
        assert best(ours) == best(values)
        assert len(ours) == len(found.time)
    assert [one.value for one in found.runs["model"]] == ["m0", "m1"]
    assert [one.value for one in found.runs["guard"]] == [0, 1]
    assert found.gaps == before.gaps
    assert len(found.gaps) == DAYS


def test_files_are_few_and_written_once(store, monkeypatch):
    files = reduce_all(store)
    for bucket_s in BUCKETS_SECONDS:
        of_level = [one for one in files if one.bucket_s == bucket_s]
        assert 0 < len(of_level) < DAYS // 2
        assert all(one.rows for one in of_level)
    assert sum(one.size_bytes for one in files) < sum(one.size_bytes for one in store.list()) / 5
    reads = reads_of(monkeypatch)
    assert not reduce_settled(store, LOG, 10**9, LATER)
    assert not reads


def test_one_call_reads_a_limited_number_of_segments(store, monkeypatch):
    reads = reads_of(monkeypatch)
    assert reduce_settled(store, LOG, 10**9, LATER)
    assert sum(ReductionFile.parse(path, 0) is None for path in reads) == MAX_SEGMENTS_PER_CALL


def test_segments_that_may_change_are_not_reduced(store):
    assert not reduce_settled(store, LOG, 0, LATER), "no snapshot is committed"
    assert not reduce_settled(store, LOG, 10**9, START), "small segments of today are merged later"
    assert not reduction_files.listed(store)[1]


def test_newer_segments_are_read_beside_the_reductions(store):
    newest = store.list()[-1]
    reduce_all(store, below=newest.next - 1)
    assert ReducedHistory().read(store.root, view()).rows == DAYS * ROWS


def test_sparse_points_are_not_stored_twice(tmp_path):
    store = SegmentStore(str(tmp_path))
    for day in range(5):
        write_day(store, day, 600, 100)
    files = reduce_all(store)
    assert {one.rows for one in files} == {0}
    assert not reduce_settled(store, LOG, 10**9, LATER)
    assert ReducedHistory().read(store.root, view(days=5)).rows == 500


def test_a_damaged_reduction_is_read_from_segments(store):
    for file in reduce_all(store):
        store.put(file.path, b"damaged")
    assert ReducedHistory().read(store.root, view()).rows == DAYS * ROWS


def test_a_deleted_reduction_is_written_again(store):
    files = reduce_all(store)
    for file in files:
        store.delete(file)
    again = reduce_all(store)
    assert {one.path for one in again} == {one.path for one in files}


def test_a_file_of_another_version_is_ignored_and_replaced(store):
    for file in reduce_all(store):
        data = store.fs.cat_file(f"{store.root}/{file.path}")
        store.delete(file)
        store.put(replace(file, version=99).path, data[:10])
    assert ReducedHistory().read(store.root, view()).rows == DAYS * ROWS
    assert {one.version for one in reduce_all(store)} == {reduction_files.VERSION}


def test_points_that_were_pruned_are_drawn_no_more(store):
    reduce_all(store)
    (oldest, *_), size = sorted(store.list(), key=lambda one: one.first), len(store.list())
    store.delete(oldest)
    assert ReducedHistory().read(store.root, view()).rows == (size - 1) * ROWS


def test_reductions_are_pruned_with_the_last_of_their_segments(store):
    reduce_all(store)
    policy = SimpleNamespace(keep_history=timedelta(days=1), keep_history_bytes=None)
    assert prune_history(store.root, policy) > DAYS
    assert not list(store.files())


def test_an_owner_that_replays_takes_back_later_reductions(store):
    files = reduce_all(store)
    middle = DAYS * ROWS
    writer = HistoryWriter(store.root, "plant")
    writer.open(Partition("x", 0), "log", 2, middle)
    writer.close()
    left = reduction_files.listed(store)[1]
    assert {one.path for one in left} == {one.path for one in files if one.next <= middle}


def test_the_writer_reduces_what_is_settled(tmp_path):
    store = SegmentStore(str(tmp_path))
    for day in range(3):
        write_day(store, day)
    writer = HistoryWriter(str(tmp_path), "plant")
    writer.open(Partition("x", 0), "log", 2, 12_000)
    writer.settle(Partition("x", 0), 12_000)
    writer.close()
    assert {one.bucket_s for one in reduction_files.listed(store)[1]} == set(BUCKETS_SECONDS)
    assert writer.stats.errors == 0
