"""Snapshots and the state of idle series, on both databases."""

from __future__ import annotations

import os

import pytest

from pipeline.core.types import Counts, Partition
from storage.stream_state import offloaded_series, positions, snapshots
from storage.stream_state import reader as stored_readers
from storage.stream_state.offloaded_series import SeriesState
from storage.stream_state.positions import Fenced

P = Partition("sensors", 0)


@pytest.fixture
def owned(database):
    return positions.acquire(database, "plant", P, "me", "")


def test_a_snapshot_comes_back_page_by_page(database, owned):
    pages = [os.urandom(100_000), b"", b"\x00\xff" * 10]
    with database.begin() as connection:
        size = snapshots.save(
            connection, owned, 42, iter(pages), state_version="v1", meta={"held": [1, None], "note": "a\x00b"}
        )
    with database.read() as connection:
        found = snapshots.load(connection, "plant", P)
        assert (found.offset, found.state_version, found.meta) == (
            42,
            "v1",
            {"held": [1, None], "note": "a␀b"},
        )
        assert found.size_bytes == size == 100_020
        assert list(found.pages) == pages
        assert snapshots.load(connection, "plant", Partition("sensors", 1)) is None
        assert snapshots.offsets(connection, "plant") == {P: 42}


def test_a_new_snapshot_replaces_the_old_one_whole(database, owned):
    with database.begin() as connection:
        snapshots.save(connection, owned, 1, [b"a", b"b", b"c"])
    with database.begin() as connection:
        snapshots.save(connection, owned, 2, [b"d"])
    with database.read() as connection:
        found = snapshots.load(connection, "plant", P)
        assert (found.offset, list(found.pages)) == (2, [b"d"])


def test_a_snapshot_that_fails_halfway_leaves_the_old_one(database, owned):
    with database.begin() as connection:
        snapshots.save(connection, owned, 1, [b"old"])

    def broken():
        yield b"new"
        raise RuntimeError("the codec failed")

    with pytest.raises(RuntimeError), database.begin() as connection:
        snapshots.save(connection, owned, 2, broken())
    with database.read() as connection:
        assert list(snapshots.load(connection, "plant", P).pages) == [b"old"]


def test_only_the_owner_saves(database, owned):
    with database.begin() as connection:
        snapshots.save(connection, owned, 1, [b"old"])
    positions.acquire(database, "plant", P, "other", "")
    for write in (
        lambda c: snapshots.save(c, owned, 2, [b"zombie"]),
        lambda c: snapshots.delete(c, owned),
        lambda c: offloaded_series.offload(c, owned, [SeriesState("a", b"", "v", 0)]),
        lambda c: offloaded_series.forget(c, owned, ["a"]),
    ):
        with pytest.raises(Fenced), database.begin() as connection:
            write(connection)
    with database.read() as connection:
        assert list(snapshots.load(connection, "plant", P).pages) == [b"old"]


def test_a_snapshot_in_the_transaction_of_a_batch(database, owned):
    with database.begin() as connection:
        position = positions.advance(connection, owned, 10, Counts(scored=10), None)
        snapshots.save(connection, position, 10, [b"state"])
    with database.begin() as connection:
        snapshots.delete(connection, position)
    with database.read() as connection:
        assert snapshots.load(connection, "plant", P) is None


def test_idle_series_leave_and_come_back(database, owned):
    states = [SeriesState(f"s{i}", f"state {i}".encode(), "v1", i) for i in range(1200)]
    with database.begin() as connection:
        assert offloaded_series.offload(connection, owned, iter(states)) == 1200
    with database.read() as connection:
        assert offloaded_series.count(connection, "plant", P) == 1200
        assert offloaded_series.count(connection, "plant", Partition("sensors", 1)) == 0
        found = offloaded_series.restore(connection, "plant", P, [f"s{i}" for i in range(0, 2400, 2)])
        assert found == {f"s{i}": states[i] for i in range(0, 1200, 2)}
    with database.begin() as connection:
        offloaded_series.forget(connection, owned, list(found))
    with database.read() as connection:
        assert offloaded_series.count(connection, "plant", P) == 600
        assert offloaded_series.restore(connection, "plant", P, ["s0", "s1"]) == {"s1": states[1]}


def test_evicting_again_replaces_whatever_the_series_is_called(database, owned):
    odd = [f'odd "key" {end}' for end in ("é\x00", "é␀", "\ud800", "".join(map(chr, range(0x4E00, 0x9000))))]
    for state in (b"old", b"new"):
        with database.begin() as connection:
            offloaded_series.offload(connection, owned, [SeriesState(name, state, "v1", 5) for name in odd])
    with database.read() as connection:
        assert offloaded_series.restore(connection, "plant", P, odd) == {
            name: SeriesState(name, b"new", "v1", 5) for name in odd
        }


def test_whoever_stores_series_of_a_ledger_stores_the_same_and_all_of_it_is_forgotten_together(database):
    states = [SeriesState(f"s{i}", f"state {i}".encode(), "", i) for i in range(20)]
    for name in ("plant (history 1)", "plant (history 2)", "plant_(history 3)"):  # _ is any letter to LIKE
        positions.acquire(database, name, P, "one", "")
        for _ in range(2):
            with database.begin() as connection:
                assert offloaded_series.store(connection, name, P, states) == 20
    with database.read() as connection:
        assert sorted(stored_readers.names(connection, "plant (")) == [
            "plant (history 1)",
            "plant (history 2)",
        ]
        assert stored_readers.names(connection, "plant_(") == ["plant_(history 3)"]
    with database.begin() as connection:
        stored_readers.forget(connection, "plant (history 1)")
    with database.read() as connection:
        assert [offloaded_series.count(connection, f"plant (history {n})", P) for n in (1, 2)] == [0, 20]
        assert stored_readers.names(connection, "plant (") == ["plant (history 2)"]
