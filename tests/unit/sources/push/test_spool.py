"""The spool: offsets, durability, repair, bounds."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import SourceError, SourceUnavailable
from pipeline.sources.push import spool as spools
from pipeline.sources.push.segments import Entry, pack
from pipeline.sources.push.spool import Spool, SpoolFullError, SpoolWriteError

MIB = 1 << 20


def entry(text: str, points: int = 1) -> Entry:
    return Entry(7, points, "text/plain", 0, text.encode())


def bodies(spool: Spool, offset: int = 0, most: int = 10**6) -> list[tuple[int, str]]:
    return [(at, one.body.decode()) for at, one in spool.read(offset, most)]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr(spools, "MIN_SEGMENT_BYTES", 200)
    monkeypatch.setattr(spools, "MAX_SEGMENT_BYTES", 200)


def test_offsets_go_on_after_a_restart(tmp_path):
    spool = Spool(tmp_path / "a", MIB)
    assert [spool.append(entry(text)) for text in "abc"] == [0, 1, 2]
    identity = spool.identity
    with pytest.raises(SourceUnavailable, match="used by another process"):
        Spool(tmp_path / "a", MIB)
    spool.close()
    spool.close()
    again = Spool(tmp_path / "a", MIB)
    assert again.append(entry("d")) == 3
    assert (again.beginning, again.end, again.identity) == (0, 4, identity)
    assert bodies(again, 1) == [(1, "b"), (2, "c"), (3, "d")]
    assert again.read(4, 10) == []
    again.close()


def test_a_record_keeps_all_that_was_received(tmp_path):
    spool = Spool(tmp_path, MIB)
    sent = Entry(123, 7, "application/x-protobuf;proto=x", 1, b"\0\xff" * 50)
    spool.append(sent)
    assert spool.read(0, 1) == [(0, sent)]
    spool.close()


def test_a_read_ends_at_its_points_and_has_at_least_one_record(tmp_path):
    spool = Spool(tmp_path, MIB)
    for text in "abcd":
        spool.append(entry(text, points=400))
    assert bodies(spool, 0, 1) == [(0, "a")]
    assert bodies(spool, 1, 500) == [(1, "b"), (2, "c")]
    assert bodies(spool, 0, 500) == [(0, "a"), (1, "b")], "back again"
    spool.close()


@given(cut=st.integers(0, 200), junk=st.binary(max_size=40))
def test_the_torn_end_of_a_killed_process_is_removed(tmp_path_factory, cut, junk):
    """Of any file that a kill or a loss of power can leave, the complete records are there."""
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, MIB)
    sizes = [0]
    for number in range(5):
        spool.append(entry(f"record {number}"))
        sizes.append(spool.size)
    spool.close()
    path = segments(folder)[0]
    content = path.read_bytes()
    kept = max(len(content) - cut, 0)
    path.write_bytes(content[:kept] + (junk if cut else b""))
    again = Spool(folder, MIB)
    complete = sum(size <= kept for size in sizes[1:])
    assert again.end == complete
    assert bodies(again) == [(n, f"record {n}") for n in range(complete)]
    assert again.append(entry("next")) == complete
    again.close()


def test_segments_go_once_they_are_released(tmp_path, small_segments):
    spool = Spool(tmp_path, MIB)
    for number in range(20):
        spool.append(entry(f"{number:050d}"))
    assert len(segments(tmp_path)) > 4
    spool.release(10)
    assert 0 < spool.beginning <= 10
    assert bodies(spool, 10)[0] == (10, f"{10:050d}")
    spool.release(20)
    assert len(segments(tmp_path)) == 1, "the last one keeps the offset"
    spool.close()
    again = Spool(tmp_path, MIB)
    assert again.end == 20
    assert again.append(entry("x")) == 20
    again.close()


def test_released_segments_are_kept_for_a_while_if_there_is_room(tmp_path, small_segments):
    spool = Spool(tmp_path, 2000, keep_seconds=3600)
    for number in range(10):
        spool.append(entry(f"{number:050d}"))
    before = len(segments(tmp_path))
    spool.release(10)
    assert len(segments(tmp_path)) == before
    for number in range(20):
        spool.append(entry(f"{number:050d}"))
        spool.release(spool.end)
    assert spool.size <= 2000
    assert spool.end == 30
    spool.close()


def test_a_full_spool_refuses_and_takes_again(tmp_path, small_segments):
    spool = Spool(tmp_path, 1000)
    with pytest.raises(SpoolFullError):
        [spool.append(entry("x" * 50)) for _ in range(100)]
    kept = spool.end
    assert spool.size <= 1000
    with pytest.raises(SpoolFullError):
        spool.append(entry("y" * 50))
    assert len(bodies(spool)) == kept, "none of those that were taken is lost"
    spool.release(kept)
    assert spool.append(entry("z")) == kept
    spool.close()


def test_a_disk_that_refuses_leaves_the_spool_as_it_was(tmp_path, monkeypatch):
    spool = Spool(tmp_path, MIB)
    spool.append(entry("good"))
    real = os.fsync

    def refuse(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(SpoolWriteError, match="No space left"):
        spool.append(entry("lost"))
    monkeypatch.setattr(os, "fsync", real)
    assert spool.append(entry("next")) == 1
    assert bodies(spool) == [(0, "good"), (1, "next")]
    spool.close()
    again = Spool(tmp_path, MIB)
    assert bodies(again) == [(0, "good"), (1, "next")]
    again.close()


def test_many_threads_get_an_offset_each(tmp_path):
    spool = Spool(tmp_path, 10 * MIB)
    found: dict[int, str] = {}

    def send(name: str) -> None:
        for number in range(50):
            found[spool.append(entry(f"{name}{number}"))] = f"{name}{number}"

    threads = [threading.Thread(target=send, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(400))
    assert bodies(spool, 0) == sorted(found.items())
    spool.close()


def test_a_damaged_record_in_the_middle_is_reported_with_its_file(tmp_path, small_segments):
    spool = Spool(tmp_path, MIB)
    for number in range(12):
        spool.append(entry(f"{number:050d}"))
    spool.close()
    path = segments(tmp_path)[0]
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 0xFF
    path.write_bytes(raw)
    again = Spool(tmp_path, MIB)
    with pytest.raises(SourceError, match=rf"{path.name} is damaged.*move the file away"):
        again.read(0, 100)
    again.close()
    path.unlink()
    without = Spool(tmp_path, MIB)
    first = bodies(without)[0][0]
    assert first == without.beginning > 0
    assert bodies(without)[-1][0] == 11
    without.close()


def test_a_segment_that_is_missing_in_the_middle_is_passed_over(tmp_path, small_segments):
    spool = Spool(tmp_path, MIB)
    for number in range(12):
        spool.append(entry(f"{number:050d}"))
    spool.close()
    paths = segments(tmp_path)
    lost = range(int(paths[1].stem), int(paths[2].stem))
    paths[1].unlink()
    again = Spool(tmp_path, MIB)
    assert [at for at, _ in bodies(again)] == [n for n in range(12) if n not in lost]
    again.close()


def test_the_checksum_covers_every_byte(tmp_path):
    frame = pack(entry("hello"))
    for place in range(len(frame)):
        damaged = bytearray(frame)
        damaged[place] ^= 1
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / f"{0:020d}.seg").write_bytes(damaged)
        spool = Spool(folder, MIB)
        assert spool.end == 0
        spool.close()
