"""Rows that are not on the disk yet: readers of the same process see each of them once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.types import Partition
from storage.history import parquet
from storage.history import writer as writers
from storage.history.reader import HistoryReader
from storage.history.segments import SegmentStore
from storage.history.unwritten import unwritten_rows
from storage.history.writer import HistoryWriter

P = Partition("sensors", 0)


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "history")


@pytest.fixture
def writer(path, monkeypatch) -> Iterator[HistoryWriter]:
    """Yield a writer that writes nothing by itself."""
    monkeypatch.setattr(writers, "FLUSH_SECONDS", 3600.0)
    monkeypatch.setattr(writers, "MIN_FLUSH_SECONDS", 3600.0)
    made = HistoryWriter(path, "plant")
    made.open(P, "", 1, 0)
    yield made
    made.close()


def batch(first: int, next: int) -> pa.Table:
    """Return a row for each offset; even ones are of series a, odd ones of b."""
    offset = np.arange(first, next, dtype=np.int64)
    series = (offset % 2).astype(np.int32)
    values = {"value": offset[:, None].astype(np.float32)}
    rows = parquet.rows(
        offset, offset * 1000, series, parquet.texts(["a", "b"]), ["v"], {"flag": offset > 5}, values
    )
    return rows.append_column("model", parquet.constant("m1", len(offset)))


def eventually(path: str, wanted: list[int], **asked) -> bool:
    """Return True once a reader finds these offsets: the writer's thread takes them a moment later."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = HistoryReader(path).read("plant", **asked)
        if "offset" in found.column_names and sorted(found.column("offset").to_pylist()) == wanted:
            return True
        time.sleep(0.01)
    return False


def test_a_row_is_read_before_it_is_on_the_disk(path, writer):
    writer.append(P, 0, 10, batch(0, 10))
    writer.append(P, 10, 20, batch(10, 20))
    assert eventually(path, list(range(20)))
    assert not SegmentStore(path).list()
    reader = HistoryReader(path)
    assert reader.read("plant of another name").num_rows == 0
    asked = {"series": "b", "since_ns": 3000, "until_ns": 9000, "columns": ["value:v", "flag", "gone"]}
    before = reader.read("plant", **asked)
    assert before.column("time").to_pylist() == [3000, 5000, 7000]
    assert writer.barrier(P, 20)
    after = reader.read("plant", **asked)
    assert after.to_pydict() == before.to_pydict()
    assert after.column_names == before.column_names


def test_every_row_is_read_once_while_it_is_written(path, writer):
    stopping, problems = threading.Event(), []

    def look() -> None:
        while not stopping.is_set():
            found = sorted(HistoryReader(path).read("plant").column("offset").to_pylist())
            if found != list(range(len(found))):
                problems.append(found)

    looking = threading.Thread(target=look)
    looking.start()
    for first in range(0, 400, 5):
        writer.append(P, first, first + 5, batch(first, first + 5))
        if first % 15 == 0:
            assert writer.barrier(P, first + 5)
        if first % 45 == 0:
            writer.settle(P, first + 5)
    stopping.set()
    looking.join()
    assert not problems
    assert eventually(path, list(range(400)))


def test_rows_of_a_lost_partition_and_of_a_closed_writer_are_not_read(path, writer):
    writer.append(P, 0, 10, batch(0, 10))
    assert eventually(path, list(range(10)))
    writer.drop(P)
    assert eventually(path, [])
    other = HistoryWriter(path, "plant")
    other.open(P, "", 2, 0)
    other.append(P, 0, 4, batch(0, 4))
    assert eventually(path, list(range(4)))
    other.close()
    assert not unwritten_rows(SegmentStore(path).root, "plant")
    assert eventually(path, list(range(4)))


def test_a_new_anomaly_is_written_at_once_but_not_every_time(path, writer):
    writer.append(P, 0, 10, batch(0, 10))
    writer.hasten()
    deadline = time.monotonic() + 60
    while not SegmentStore(path).list() and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.append(P, 10, 20, batch(10, 20))
    writer.hasten()
    assert eventually(path, list(range(20)))
    assert [one.next for one in SegmentStore(path).list()] == [10]
