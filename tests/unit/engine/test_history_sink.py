"""The history writer and reader: nothing lost behind a barrier, nothing twice after a crash, and never in the
way of scoring.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.types import Partition
from storage.history import parquet
from storage.history import writer as history
from storage.history.compaction import compact
from storage.history.reader import HistoryReader
from storage.history.segments import SegmentStore
from storage.history.writer import HistoryWriter
from tests.support.verdict_topics import wait_until

P = Partition("sensors", 0)
NAMES = pa.array([f"site-{i}" for i in range(1000)])


def batch(first, next, series=5):
    """One row per offset, of a few of the thousand known series."""
    offset = np.arange(first, next, dtype=np.int64)
    values = np.column_stack([offset * 0.5, -offset.astype(np.float64)])
    return parquet.rows(
        offset,
        offset * 1_000,
        (offset % series).astype(np.int32),
        NAMES,
        ["temperature", "pressure"],
        {"score": (offset % 7).astype(np.float32), "flag": offset % 100 == 0},
        {"value": values, "expected": values.astype(np.float32)},
    )


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "history")


@pytest.fixture
def writer(path):
    made = HistoryWriter(path, "plant")
    yield made
    made.close()


def offsets(path, stream="plant"):
    return sorted(HistoryReader(path).read(stream).column("offset").to_pylist())


def test_rows_come_back_as_they_were(path, writer):
    writer.open(P, "", 1, 100)
    writer.append(P, 100, 200, batch(100, 200))
    assert writer.barrier(P, 200)
    found = HistoryReader(path).read("plant").to_pandas()
    assert list(found.columns) == [
        "offset", "series", "time", "score", "flag", "value:temperature", "value:pressure", "expected:temperature", "expected:pressure",
    ]  # fmt: skip
    expected = batch(100, 200).to_pandas().sort_values(["series", "time"]).reset_index(drop=True)
    assert (found.astype({"series": str}) == expected.astype({"series": str})).all().all()


def test_a_reader_takes_only_what_it_asks_for(path, writer):
    writer.open(P, "", 1, 0)
    for first in range(0, 1000, 100):
        writer.append(P, first, first + 100, batch(first, first + 100))
        writer.barrier(P, first + 100)
    reader = HistoryReader(path)
    part = reader.read(
        "plant", series="site-3", since_ns=200_000, until_ns=400_000, columns=["score", "value:gone"]
    )
    assert part.column_names == ["series", "time", "score"]
    assert part.column("time").to_pylist() == [t * 1000 for t in range(200, 400) if t % 5 == 3]
    two = reader.read("plant", series=["site-4", "site-1"], columns=["offset"])
    assert two.column("series").to_pylist() == ["site-1"] * 200 + ["site-4"] * 200
    assert two.column("offset").to_pylist()[:2] == [1, 6]
    assert reader.read("plant", series="nobody").num_rows == 0
    assert reader.read("unheard of").num_rows == 0


def test_missing_values_stay_missing(path, writer):
    writer.open(P, "", 1, 0)
    nan = np.full((2, 1), np.nan)
    rows = parquet.rows(np.arange(2), np.arange(2), np.zeros(2, np.int32), NAMES, ["v"], {}, {"value": nan})
    writer.append(P, 0, 2, rows)
    writer.barrier(P, 2)
    column = HistoryReader(path).read("plant").column("value:v")
    assert column.null_count == 0
    assert np.isnan(column.to_numpy()).all()


def test_a_channel_that_is_added_is_null_before(path, writer):
    writer.open(P, "", 1, 0)
    writer.append(P, 0, 10, batch(0, 10))
    writer.append(P, 10, 20, batch(10, 20).append_column("value:humidity", pa.array(np.ones(10))))
    writer.barrier(P, 20)
    assert HistoryReader(path).read("plant").column("value:humidity").null_count == 10


def test_files_of_an_earlier_version_are_read_and_merged_with_those_that_have_relations(path, writer):
    writer.open(P, "", 1, 0)
    for first in range(0, 60, 10):
        rows = batch(first, first + 10)
        if first >= 30:
            rows = rows.append_column("relation:temperature", pa.array(np.full(10, 0.5, np.float32)))
        writer.append(P, first, first + 10, rows)
        writer.barrier(P, first + 10)
    store = SegmentStore(path)
    (folder,) = {segment.folder for segment in store.list()}
    assert compact(store, folder, 60) == 5
    rows = HistoryReader(path).read("plant", columns=["offset", "value:temperature", "relation:temperature"])
    known = rows.column("relation:temperature").to_numpy()
    offset = rows.column("offset").to_numpy()
    assert np.isnan(known[offset < 30]).all()
    assert (known[offset >= 30] == 0.5).all()
    assert (rows.column("value:temperature").to_numpy() == offset * 0.5).all()


def test_batches_without_a_point_count_as_read(path, writer):
    writer.open(P, "", 1, 0)
    for first in range(0, 100, 10):
        writer.append(P, first, first + 10, batch(first, first + 10) if first == 50 else parquet.empty())
    assert writer.barrier(P, 100)
    (name,) = [segment.path.rpartition("/")[2] for segment in writer._store.list()]
    assert name.startswith("0-100.")
    assert offsets(path) == list(range(50, 60))


def test_a_slice_of_a_batch_and_slots_without_a_name(path, writer):
    names = pa.array(["a", None, "c"])
    offset = np.arange(6)
    rows = parquet.rows(
        offset, offset, np.array([0, 2, 0, 2, 0, 2], np.int32), names, [], {"flag": offset > 2}, {}
    )
    writer.open(P, "", 1, 2)
    writer.append(P, 2, 5, rows.slice(2, 3))
    assert writer.barrier(P, 5)
    found = HistoryReader(path).read("plant").to_pydict()
    assert found == {
        "offset": [2, 4, 3],
        "series": ["a", "a", "c"],
        "time": [2, 4, 3],
        "flag": [False, True, True],
    }


def offsets_without_a_barrier(path):
    """Return the offsets of the segments, once there is one."""
    store, deadline = SegmentStore(path), time.monotonic() + 120
    while not store.list() and time.monotonic() < deadline:
        time.sleep(0.05)
    return sorted(one for segment in store.list() for one in store.read(segment).column("offset").to_pylist())


def test_rows_are_on_the_disk_without_a_barrier_after_a_while(path, writer, monkeypatch):
    monkeypatch.setattr(history, "FLUSH_SECONDS", 0.0)
    writer.open(P, "", 1, 0)
    writer.append(P, 0, 10, batch(0, 10))
    assert offsets_without_a_barrier(path) == list(range(10))


def test_a_row_is_on_the_disk_soon_where_writing_is_cheap(path, writer, monkeypatch):
    monkeypatch.setattr(history, "FLUSH_SECONDS", 3600.0)
    writer.open(P, "", 1, 0)
    writer.append(P, 0, 10, batch(0, 10))
    assert offsets_without_a_barrier(path) == list(range(10))


def test_rows_wait_longer_where_writing_is_slow_but_not_for_ever(writer):
    writer.open(P, "", 1, 0)
    writer.append(P, 0, 10, batch(0, 10))
    assert writer.barrier(P, 10)
    for _ in range(20):
        writer._adapt(2.0)
    assert writer._flush_seconds > history.FLUSH_SECONDS
    for _ in range(40):
        writer._adapt(0.001)
    assert writer._flush_seconds == history.MIN_FLUSH_SECONDS


def test_an_object_store_gets_few_files():
    writer = HistoryWriter("memory://few-files", "plant")
    writer._adapt(0.001)
    assert writer._flush_seconds == history.FLUSH_SECONDS
    writer.close()


def test_partitions_and_streams_keep_apart(path, writer):
    other = Partition("sensors", 1)
    with_other_stream = HistoryWriter(path, "edge/1")
    with_other_stream.open(P, "", 1, 0)
    with_other_stream.append(P, 0, 3, batch(0, 3))
    with_other_stream.close()
    for partition in (P, other):
        writer.open(partition, "", 1, 0)
        writer.append(partition, 0, 10, batch(0, 10))
    writer.close()
    assert offsets(path) == sorted([*range(10), *range(10)])
    assert offsets(path, "edge/1") == [0, 1, 2]


def test_a_lost_partition_writes_nothing_more(path, writer):
    writer.open(P, "", 1, 0)
    writer.append(P, 0, 10, batch(0, 10))
    writer.drop(P)
    writer.drop(P)
    writer.close()
    assert offsets(path) == []


def test_a_barrier_waits_for_no_more_than_the_write_that_is_under_way(path, writer, monkeypatch):
    """Of several segments that are due, that of the barrier comes next."""
    partitions = [Partition("sensors", number) for number in range(4)]
    written, begun, go_on, write = [], threading.Event(), threading.Event(), SegmentStore.write

    def slow_write(store, segment, data):
        written.append(segment.folder.split("/")[-2])
        begun.set()
        assert go_on.wait(60)
        write(store, segment, data)

    monkeypatch.setattr(SegmentStore, "write", slow_write)
    monkeypatch.setattr(history, "FLUSH_SECONDS", 3600.0)
    writer._flush_seconds = 3600.0
    for partition in partitions:
        writer.open(partition, "", 1, 0)
        writer.append(partition, 0, 100, batch(0, 100))
    wait_until(lambda: len(writer.unwritten()) == len(partitions), "all rows wait for their segments")
    monkeypatch.setattr(history, "SEGMENT_BYTES", 1)  # now all are due
    assert begun.wait(60)
    wanted = next(one for one in reversed(partitions) if str(one.number) != written[0])
    waiting = threading.Thread(target=writer.barrier, args=(wanted, 100))
    waiting.start()
    wait_until(lambda: bool(writer._tasks), "the barrier waits")
    go_on.set()
    waiting.join(60)
    assert written[1] == str(wanted.number)


def test_what_was_appended_before_is_written_without_a_wait(path, writer, monkeypatch):
    go_on, write = threading.Event(), SegmentStore.write

    def slow_write(store, segment, data):
        assert go_on.wait(60)
        write(store, segment, data)

    monkeypatch.setattr(SegmentStore, "write", slow_write)
    writer.open(P, "", 1, 0)
    writer.append(P, 0, 100, batch(0, 100))
    is_written = writer.begin_writing(P)
    assert not is_written()
    go_on.set()
    wait_until(is_written, "the segment is written")
    assert offsets(path) == list(range(100))
    writer.drop(P)
    wait_until(writer.begin_writing(P), "nothing of a lost partition is waited for")


def test_the_next_owner_writes_again_from_the_snapshot(path, writer):
    writer.open(P, "", 1, 0)
    writer.append(P, 0, 100, batch(0, 100))
    assert writer.barrier(P, 100)  # the snapshot
    writer.append(P, 100, 150, batch(100, 150))
    writer.begin_writing(P)
    successor = HistoryWriter(path, "plant")
    writer.barrier(P, 150)
    successor.open(P, "", 2, 100)
    successor.append(P, 100, 170, batch(100, 170))
    assert successor.barrier(P, 170)
    writer.append(P, 150, 400, batch(150, 400))  # a zombie; its rows count until the owner has come so far
    writer.close()
    assert sorted(set(offsets(path))) == sorted(offsets(path))
    for first in range(170, 400, 46):
        successor.append(P, first, first + 46, batch(first, first + 46))
        successor.barrier(P, first + 46)
    successor.close()
    assert offsets(path) == list(range(400))


def test_a_gap_in_the_log_is_a_gap_in_history(path, writer):
    writer.open(P, "", 1, 0)
    writer.append(P, 0, 10, batch(0, 10))
    writer.append(P, 500, 510, batch(500, 510))
    writer.barrier(P, 510)
    assert offsets(path) == [*range(10), *range(500, 510)]


OWNER = """
import json, sys
import numpy as np, pyarrow as pa
from pipeline.core.types import Partition
from storage.history import parquet, writer as history
history.FLUSH_SECONDS = 0.02
path, epoch, start = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
names, p = pa.array(["a"]), Partition("sensors", 0)
writer = history.HistoryWriter(path, "plant")
writer.open(p, "id", epoch, start)
first = start
for turn in range(1, 100_000):
    offset = np.arange(first, first + 37)
    writer.append(p, first, first + 37, parquet.rows(offset, offset, np.zeros(37, np.int32), names, [], {}, {}))
    first += 37
    if turn % 5 == 0:
        whole = writer.barrier(p, first)
        print(json.dumps([first, whole]), flush=True)   # the snapshot is committed
        writer.settle(p, first)
"""


def test_kill_9_again_and_again_loses_nothing_and_doubles_nothing(path):
    """Each owner dies at a random moment and the next one replays from the last snapshot that was committed."""
    chance = random.Random(5)
    snapshot = 0
    for epoch in range(1, 6):
        arguments = [sys.executable, "-c", OWNER, path, str(epoch), str(snapshot)]
        owner = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        for _ in range(chance.randint(1, 8)):
            snapshot, whole = json.loads(owner.stdout.readline())
            assert whole
        time.sleep(chance.random() * 0.02)
        owner.send_signal(signal.SIGKILL)
        for line in owner.communicate()[0].splitlines():
            if line.endswith("]"):
                snapshot = json.loads(line)[0]
        buffered = offsets(path)
        assert buffered[:snapshot] == list(range(snapshot)), "everything below the snapshot is on disk, once"
        assert len(buffered) == len(set(buffered))


def test_a_broken_disk_costs_history_only(path, monkeypatch):
    monkeypatch.setattr(history, "RETRY_DELAYS_SECONDS", (0.01,))
    monkeypatch.setattr(history, "MAX_BUFFERED_BYTES", 50_000)
    failures: list[Exception] = []
    writer = HistoryWriter(path, "plant", failures.append)
    write = writer._store.write

    def broken(segment, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._store, "write", broken)
    writer.open(P, "", 1, 0)
    started = time.monotonic()
    for first in range(0, 20_000, 1000):
        writer.append(P, first, first + 1000, batch(first, first + 1000))
    assert not writer.barrier(P, 20_000)
    while writer.stats.dropped_rows < 20_000 and time.monotonic() - started < 120:
        time.sleep(0.01)
    assert failures
    assert str(failures[0]).endswith("No space left on device")
    monkeypatch.setattr(writer._store, "write", write)
    writer.append(P, 20_000, 20_100, batch(20_000, 20_100))
    writer.close()
    assert offsets(path) == list(range(20_000, 20_100))
    assert (writer.stats.dropped_rows, writer.stats.rows) == (20_000, 100)


def test_a_slow_disk_slows_the_caller_instead_of_growing(path, monkeypatch):
    monkeypatch.setattr(history, "MAX_BUFFERED_BYTES", 200_000)
    writer = HistoryWriter(path, "plant")
    write, seen = writer._store.write, []

    def slow(segment, data):
        time.sleep(0.02)
        seen.append(writer._memory)
        write(segment, data)

    monkeypatch.setattr(writer._store, "write", slow)
    writer.open(P, "", 1, 0)
    for first in range(0, 40_000, 1000):
        writer.append(P, first, first + 1000, batch(first, first + 1000))
    writer.close()
    assert max(seen) <= 200_000
    assert writer.stats.dropped_rows == 0
    assert offsets(path) == list(range(40_000))


def test_reading_while_segments_are_merged(path, writer, monkeypatch):
    writer.open(P, "", 1, 0)
    stop, counts = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            found = offsets(path)
            assert found == list(range(len(found)))
            counts.append(len(found))

    reader = threading.Thread(target=read)
    reader.start()
    for first in range(0, 1000, 10):
        writer.append(P, first, first + 10, batch(first, first + 10))
        assert writer.barrier(P, first + 10)
        writer.settle(P, first + 10)
    stop.set()
    reader.join()
    writer.close()
    assert offsets(path) == list(range(1000))
    assert counts == sorted(counts)
