"""Copies of snapshots beside the recorded history."""

from __future__ import annotations

import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

from storage.history.checkpoints import Checkpoint, CheckpointPage, CheckpointStore, kept_checkpoints

EVERY = 600 * 10**9
PAGES = [CheckpointPage(b"first", ["a", "b"]), CheckpointPage(b"second", ["c"])]


def test_only_the_pages_of_the_wanted_series_are_read(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    store.write("plant/t/0/x", 7, 100, PAGES, ["b"])
    store.write("plant/t/0/x", 9, 200, PAGES, [])
    newest, older = store.checkpoints("plant/t/0/x")
    assert (newest.offset, older.offset, older.created_ns) == (9, 7, 100)
    assert store.read(older, {"c", "d"}) == ({"c", "d"}, [b"second"])
    assert store.read(older, {"b"}) == (set(), []), "it must not start from here"
    store.delete(older)
    store.delete(older)
    assert store.checkpoints("plant/t/0/x") == [newest]
    assert store.checkpoints("plant/t/1/x") == []


def test_no_series_starts_from_an_index_of_the_first_form(tmp_path: Path) -> None:
    """It does not tell which series lack late points."""
    store = CheckpointStore(str(tmp_path))
    store.write("plant/t/0/x", 7, 100, PAGES, [])
    (one,) = store.checkpoints("plant/t/0/x")
    with zipfile.ZipFile(tmp_path / one.path, "w") as archive:
        archive.writestr("0", b"first")
        archive.writestr("index.json", '{"keys": [["a", "b"]], "unfit": []}')
    assert store.read(one, {"a"}) == (set(), [])


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    store.write("plant/t/0/x", 7, 100, PAGES, [])
    (one,) = store.checkpoints("plant/t/0/x")
    path = tmp_path / one.path
    path.write_bytes(path.read_bytes().replace(b"first", b"fires"))
    with pytest.raises(ValueError, match="CRC"):
        store.read(one, {"a"})
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="zip"):
        store.read(one, {"a"})


def test_the_next_older_checkpoint_is_at_most_twice_as_old() -> None:
    kept: set[Checkpoint] = set()
    for n in range(400):
        now = n * EVERY + 5
        kept = kept_checkpoints([*kept, Checkpoint("", n, n * EVERY)], now, EVERY, 200 * EVERY)
        ages = sorted((now - one.created_ns) // EVERY for one in kept)
        assert len(ages) <= 18
        assert ages[0] == 0
        if n > 200:
            assert ages[-1] >= 64
        assert all(later <= 2 * age + 1 for age, later in pairwise(ages))
