"""Names of history files, and which of them count."""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Storage
from pipeline.core.errors import ConfigError
from pipeline.core.types import Partition
from storage.history import parquet
from storage.history.compaction import MIN_SEGMENTS_TO_MERGE, compact
from storage.history.reader import HistoryReader
from storage.history.segments import Segment, SegmentStore, folder_of, valid
from storage.retention import prune_history

FOLDER = folder_of("plant", Partition("sensors", 0), "log")


def segment(first, next, epoch=1, folder=FOLDER, written=1_700_000_000, size=0):
    return Segment(folder, first, next, epoch, first, max(first, next - 1), written, size)


@given(st.text(), st.text(min_size=1), st.integers(0, 9999), st.text(), st.integers(-(2**63), 2**63 - 1))
def test_a_name_can_be_parsed_back(stream, topic, number, identity, oldest):
    folder = folder_of(stream, Partition(topic, number), identity)
    made = Segment(folder, 5, 9, 3, oldest, oldest, 12, 77)
    assert Segment.parse(made.path, 77) == made
    assert len(folder.split("/")) == 4
    assert all(len(part.encode()) <= 255 and part not in {".", ".."} for part in folder.split("/"))


def test_other_files_are_no_segments():
    for path in ("a/b/0/c/notes.txt", f"{segment(0, 1).path}.12.partial", "x.parquet"):
        assert Segment.parse(path, 1) is None


def test_logs_of_one_topic_do_not_mix():
    other = folder_of("plant", Partition("sensors", 0), "made again")
    both = [segment(0, 10), segment(0, 10, folder=other)]
    assert set(valid(both)) == set(both)


def test_a_new_owner_replaces_what_it_writes_again():
    old = [segment(0, 10), segment(10, 20), segment(20, 30)]
    assert valid([*old, segment(20, 25, epoch=2)]) == [*old[:2], segment(20, 25, epoch=2)]


def test_what_a_zombie_writes_later_does_not_count():
    new = [segment(20, 40, epoch=2), segment(40, 60, epoch=2)]
    assert valid([segment(0, 20), segment(20, 30), segment(30, 50), *new]) == [segment(0, 20), *new]


def between(offset, oldest, newest, epoch=1):
    return Segment(FOLDER, offset, offset, epoch, oldest, newest, 1_700_000_000, 1)


def test_what_silence_ended_at_one_offset_counts_for_each_of_its_times():
    read, silent = segment(0, 20), [between(20, 100, 109), between(20, 110, 119), between(20, 120, 120)]
    assert valid([*reversed(silent), read]) == [read, *silent]
    merged = between(20, 100, 119)
    assert valid([*silent, read, merged]) == [read, merged, silent[2]]
    unwritten_too = between(20, 121, 125, epoch=2)  # of the owner that took over in the silence
    assert valid([*silent, unwritten_too, read]) == [read, *silent, unwritten_too]


def test_an_owner_that_reads_the_records_before_a_silence_again_replaces_it():
    silent = [between(20, 100, 109), between(20, 110, 119)]
    again, ended = segment(10, 20, epoch=2), between(20, 100, 115, epoch=2)
    assert valid([segment(0, 10), segment(10, 20), *silent, again, ended]) == [segment(0, 10), again, ended]
    assert valid([segment(0, 10), segment(10, 20), *silent, again]) == [segment(0, 10), again]


def test_a_merged_file_counts_instead_of_its_parts():
    assert valid([segment(0, 10), segment(10, 20), segment(0, 20), segment(20, 30)]) == [
        segment(0, 20),
        segment(20, 30),
    ]


def test_rows_that_came_without_reading_keep_their_place():
    end = segment(30, 30)
    assert valid([segment(0, 30), end]) == [segment(0, 30), end]
    assert valid([segment(0, 30), end, segment(20, 30, epoch=2), segment(30, 30, epoch=2)]) == [
        segment(20, 30, epoch=2),
        segment(30, 30, epoch=2),
    ]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12), st.integers(1, 4)), max_size=25))
def test_no_position_is_held_twice_and_the_highest_epoch_is_never_lost(spans):
    given_ = [segment(first, first + length, epoch) for first, length, epoch in spans]
    chosen = valid(given_)
    held = [position for s in chosen for position in range(s.first, s.next)]
    assert len(held) == len(set(held))
    assert chosen == sorted(chosen, key=lambda s: (s.first, s.next))
    for left_out in set(given_) - set(chosen):
        better = [s for s in chosen if s.epoch >= left_out.epoch]
        assert (
            any(s.first < left_out.next and left_out.first < s.next for s in better)
            or left_out.first == left_out.next
        )


def table(first, next):
    n = next - first
    return pa.table(
        {
            "offset": np.arange(first, next),
            "series": pa.array([f"s{i % 3}" for i in range(n)]).dictionary_encode(),
            "time": np.arange(first, next) * 10,
            "score": np.linspace(0, 1, n, dtype=np.float32),
        }
    )


def put(store, *segments):
    for s in segments:
        store.write(s, parquet.encode(table(s.first, s.next)))


def offsets(store):
    found = []
    for s in valid(store.list(FOLDER)):
        with store.open(s) as file:
            found += parquet.decode(file).column("offset").to_pylist()
    return sorted(found)


def test_small_segments_are_merged_below_the_snapshot_only(tmp_path):
    store = SegmentStore(str(tmp_path))
    put(store, *(segment(i * 10, i * 10 + 10) for i in range(MIN_SEGMENTS_TO_MERGE + 2)))
    assert compact(store, FOLDER, MIN_SEGMENTS_TO_MERGE * 10) == MIN_SEGMENTS_TO_MERGE - 1
    assert sorted((s.first, s.next) for s in store.list(FOLDER)) == [
        (0, MIN_SEGMENTS_TO_MERGE * 10),
        *((i * 10, i * 10 + 10) for i in (MIN_SEGMENTS_TO_MERGE, MIN_SEGMENTS_TO_MERGE + 1)),
    ]
    assert offsets(store) == list(range((MIN_SEGMENTS_TO_MERGE + 2) * 10))
    assert compact(store, FOLDER, 10**9) == 0, "too few of them, and the merged one is large among them"


def test_a_merge_that_died_before_its_parts_were_deleted(tmp_path):
    store = SegmentStore(str(tmp_path))
    put(store, segment(0, 10), segment(10, 20), segment(0, 20), segment(20, 30))
    assert offsets(store) == list(range(30))
    assert compact(store, FOLDER, 30) == 2
    assert [(s.first, s.next) for s in valid(store.list(FOLDER))] == [(0, 20), (20, 30)]
    assert offsets(store) == list(range(30))


def test_two_days_are_not_merged_into_one(tmp_path):
    store = SegmentStore(str(tmp_path))
    day = 86_400
    put(
        store,
        *(
            segment(i * 10, i * 10 + 10, written=day * (2 * i // MIN_SEGMENTS_TO_MERGE))
            for i in range(MIN_SEGMENTS_TO_MERGE)
        ),
    )
    assert compact(store, FOLDER, 10**9) == 0


def test_a_former_owner_that_merges_late_does_no_harm(tmp_path, monkeypatch):
    """It has read the parts when the new owner merges and deletes them; its own file must not come to
    overlap."""
    store, zombie = SegmentStore(str(tmp_path)), SegmentStore(str(tmp_path))
    put(store, *(segment(i * 10, i * 10 + 10) for i in range(MIN_SEGMENTS_TO_MERGE + 1)))
    write = zombie.write

    def frozen_before_writing(merged, data):
        put(store, segment((MIN_SEGMENTS_TO_MERGE + 1) * 10, (MIN_SEGMENTS_TO_MERGE + 2) * 10))
        monkeypatch.setattr("storage.history.compaction.TARGET_BYTES", 1 << 30)
        assert compact(store, FOLDER, 10**9) == MIN_SEGMENTS_TO_MERGE + 1
        monkeypatch.setattr(zombie, "write", write)
        write(merged, data)

    monkeypatch.setattr(zombie, "write", frozen_before_writing)
    assert compact(zombie, FOLDER, MIN_SEGMENTS_TO_MERGE * 10) == 0
    assert offsets(store) == list(range((MIN_SEGMENTS_TO_MERGE + 2) * 10))


def test_retention_that_deletes_the_parts_of_a_new_merged_file_does_no_harm(tmp_path, monkeypatch):
    """Each process deletes superseded files when it starts, also between a merge and the check after it."""
    store = SegmentStore(str(tmp_path))
    put(store, *(segment(i * 10, i * 10 + 10) for i in range(MIN_SEGMENTS_TO_MERGE)))
    write = store.write

    def then_another_process_starts(merged, data):
        write(merged, data)
        assert prune_history(str(tmp_path), Storage(keep_history=timedelta(days=36500))) > 0

    monkeypatch.setattr(store, "write", then_another_process_starts)
    compact(store, FOLDER, 10**9)
    assert offsets(store) == list(range(MIN_SEGMENTS_TO_MERGE * 10))


def test_two_processes_that_merge_at_once_lose_nothing(tmp_path, monkeypatch):
    store, other = SegmentStore(str(tmp_path)), SegmentStore(str(tmp_path))
    put(store, *(segment(i * 10, i * 10 + 10) for i in range(MIN_SEGMENTS_TO_MERGE + 2)))
    write = store.write

    def the_other_has_written_too(merged, data):
        write(merged, data)
        put(other, segment(10, (MIN_SEGMENTS_TO_MERGE + 2) * 10))

    monkeypatch.setattr(store, "write", the_other_has_written_too)
    compact(store, FOLDER, MIN_SEGMENTS_TO_MERGE * 10)
    assert offsets(store) == list(range((MIN_SEGMENTS_TO_MERGE + 2) * 10))


def test_two_merges_that_both_give_up_while_a_third_process_starts_lose_nothing(tmp_path, monkeypatch):
    """Owner and former owner write merged files that overlap; retention deletes the parts of the longer."""
    store, other = SegmentStore(str(tmp_path)), SegmentStore(str(tmp_path))
    count = MIN_SEGMENTS_TO_MERGE + 2
    put(store, *(segment(i * 10, i * 10 + 10) for i in range(count)))
    write = store.write
    others = segment(20, count * 10)

    def meanwhile(merged, data):
        write(merged, data)
        monkeypatch.setattr(store, "write", write)
        put(other, others)
        assert prune_history(str(tmp_path), Storage(keep_history=timedelta(days=36500))) > 0
        put(other, others)  # retention may have deleted either of the two

    monkeypatch.setattr(store, "write", meanwhile)
    compact(store, FOLDER, (count - 1) * 10)
    # the other one gives up, too: it sees the merged file, and writes its own missing parts again
    held = offsets(store)
    assert held[:20] == list(range(20))
    other.delete(others)
    assert [one for one in offsets(store) if one < (count - 1) * 10] == list(range((count - 1) * 10))


def test_a_segment_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    store = SegmentStore(str(tmp_path))

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            put(store, segment(0, 10))
    assert store.list() == []
    assert not [name for _, _, names in os.walk(tmp_path) for name in names]


def test_a_store_that_is_no_local_folder():
    store = SegmentStore("memory://history-test")
    put(store, segment(0, 10), segment(10, 20))
    assert offsets(store) == list(range(20))
    for s in store.list():
        store.delete(s)
        store.delete(s)
    assert store.list() == []


def test_a_root_that_cannot_be_used():
    with pytest.raises(ConfigError, match=r"storage\.history_path"):
        SegmentStore("nonsense://history")


# ------------------------------------------------------------------------------------------------ damage


def written(store: SegmentStore, count: int) -> list[Segment]:
    """Write ``count`` adjacent segments of ten rows."""
    made = []
    for first in range(0, 10 * count, 10):
        offsets = np.arange(first, first + 10)
        rows = parquet.rows(
            offsets,
            offsets,
            np.zeros(10, np.int32),
            parquet.texts(["a"]),
            ["x"],
            {},
            {"value": np.ones((10, 1))},
        )
        data = parquet.encode(rows)
        made.append(segment(first, first + 10, size=len(data)))
        store.write(made[-1], data)
    return made


DAMAGED_BYTES = {
    "truncated": lambda data: data[: len(data) // 2],
    "flipped": lambda data: bytes(255 - byte for byte in data),
    "empty": lambda data: b"",
    "of another kind": lambda data: b"time,series\n1,a\n",
}


@pytest.mark.parametrize("damage", DAMAGED_BYTES)
def test_a_damaged_segment_is_skipped_and_named(tmp_path, damage, caplog):
    store = SegmentStore(str(tmp_path))
    broken = written(store, 3)[1]
    path = tmp_path / broken.path
    path.write_bytes(DAMAGED_BYTES[damage](path.read_bytes()))
    reader = HistoryReader(str(tmp_path))
    assert sorted(reader.read("plant")["time"].to_pylist()) == [*range(10), *range(20, 30)]
    newest, unread = reader.read_newest("plant", 5)
    assert (newest["time"].to_pylist(), unread) == ([25, 26, 27, 28, 29], 15)
    assert list(reader.skipped) == [broken.path]
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]
    (found,) = reader.damaged()
    assert str(path) in found


def test_a_damaged_segment_does_not_stop_the_merging_of_others(tmp_path):
    store = SegmentStore(str(tmp_path))
    made = written(store, 2 * MIN_SEGMENTS_TO_MERGE + 1)
    path = tmp_path / made[1].path
    path.write_bytes(b"no Parquet" * 40)
    assert compact(store, FOLDER, 10**6) > 0
    assert path.exists(), "what cannot be read is not merged away"
    times = HistoryReader(str(tmp_path)).read("plant")["time"].to_pylist()
    assert sorted(times) == [*range(10), *range(20, 10 * len(made))]
