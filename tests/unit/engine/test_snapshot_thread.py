"""A thread writes snapshots while the loop goes on; what they hold belongs to their offset."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipeline.core.types import FaultKind, Partition
from pipeline.engine import snapshots
from storage.stream_state import offloaded_series, positions
from storage.stream_state import snapshots as stored_snapshots
from tests.faults.feed import make_log, record
from tests.support.engines import Bench, log_that_a_leaves
from tests.unit.engine.test_takeover import essence

PLANT = Partition("plant", 0)


class SlowDisk:
    """Keeps snapshots of the thread from being written until ``release``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._free = threading.Event()
        write = snapshots.Snapshots._write

        def slow_write(taken, content):
            if threading.current_thread() is not threading.main_thread():
                assert self._free.wait(60)
            return write(taken, content)

        monkeypatch.setattr(snapshots.Snapshots, "_write", slow_write)

    def release(self) -> None:
        self._free.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk(monkeypatch)
    yield slow
    slow.release()


def snapshot_offset(bench: Bench) -> int:
    with bench.database.read() as connection:
        return stored_snapshots.offsets(connection, "plant")[PLANT]


def begin_writing(bench: Bench, disk: SlowDisk, **parts: bool):
    """Return an engine whose thread is about to write a snapshot, and the offset of that."""
    bench.fill(lambda log: len(log.values) // 2)
    engine = bench.engine(**parts)
    while (copied := engine.parts.snapshots._written) is None:
        engine.turn(0.0)
    return engine, copied[0].offset


@pytest.fixture
def bench(make) -> Bench:
    return make([make_log(0, 120)], storage={"snapshot_every": "0s"}, engine={"max_batch": 20})


@pytest.fixture
def undisturbed(make) -> set:
    bench = make([make_log(0, 120)])
    bench.fill()
    bench.drain(bench.engine())
    return essence(bench.anomalies())


@pytest.mark.parametrize("parts", [{}, {"history": True, "revisions": True}], ids=["plain", "as a daemon"])
def test_the_loop_goes_on_and_the_snapshot_is_that_of_its_offset(bench, disk, undisturbed, parts):
    engine, offset = begin_writing(bench, disk, **parts)
    before = snapshot_offset(bench)
    bench.fill()
    bench.drain(engine)
    assert bench.position().next_offset > offset, "the loop went on"
    assert snapshot_offset(bench) == before < offset
    disk.release()
    engine.parts.snapshots.wait()
    assert snapshot_offset(bench) == offset
    bench.drain(bench.engine())  # the former one has crashed: this one replays from the snapshot
    bench.check()
    assert essence(bench.anomalies()) == undisturbed


def test_a_crash_before_it_is_written_replays_from_the_one_before(bench, disk, undisturbed):
    engine, _ = begin_writing(bench, disk)
    bench.drain(engine)
    bench.fill()
    bench.drain(bench.engine())
    disk.release()
    engine.parts.snapshots.wait()  # too late: the partition has another owner
    bench.drain(bench.engine())
    bench.check()
    assert essence(bench.anomalies()) == undisturbed


def test_an_owner_that_was_replaced_writes_nothing(bench, disk):
    engine, _ = begin_writing(bench, disk)
    before = snapshot_offset(bench)
    positions.acquire(bench.database, "plant", PLANT, "another", bench.position().identity)
    disk.release()
    engine.parts.snapshots.wait()
    engine.turn(0.0)
    assert snapshot_offset(bench) == before
    assert PLANT not in engine.parts.ownership.positions
    assert [fault.kind for fault in bench.faults()] == [FaultKind.FENCED]


def test_a_partition_that_left_meanwhile_is_not_reported(bench, disk):
    engine, offset = begin_writing(bench, disk)
    engine._partitions.drop(PLANT)
    disk.release()
    engine.parts.snapshots.wait()
    engine.turn(0.0)
    assert snapshot_offset(bench) == offset, "it was ours when it was written"
    assert bench.faults() == []


def test_a_renewed_state_is_written_again(bench, disk):
    engine, offset = begin_writing(bench, disk)
    engine.parts.snapshots.renew()
    disk.release()
    engine.parts.snapshots.wait()
    taken = []
    write = engine.parts.snapshots._write
    engine.parts.snapshots._write = lambda content: taken.append(content.offset) or write(content)
    engine.turn(0.0)
    assert taken == [bench.position().next_offset] > [offset], (
        "at once: the state is no longer what was copied"
    )


def test_the_end_waits_for_the_thread(bench, disk):
    engine, _ = begin_writing(bench, disk)
    bench.drain(engine)
    threading.Timer(0.2, disk.release).start()
    engine.close()
    assert snapshot_offset(bench) == bench.position().next_offset


def test_a_series_that_comes_back_meanwhile_stays_stored(make, disk):
    """The snapshot of before it came does not hold it."""
    bench = make([log_that_a_leaves()], idle_after="500s", lateness="0s", storage={"snapshot_every": "0s"})
    bench.fill(lambda log: 239)
    engine = bench.engine()

    def stored() -> int:
        with bench.database.read() as connection:
            return offloaded_series.count(connection, "plant", PLANT)

    while not stored():
        engine.turn(0.0)
    bench.drain(engine)
    while engine.parts.snapshots._written is None:  # a snapshot without a
        bench.log.extend([record("b", 1500, 21.0)], 0)
        bench.drain(engine)
    bench.log.extend([record("a", 1501, 21.0)], 0)
    bench.drain(engine)
    disk.release()
    engine.parts.snapshots.wait()
    assert stored() == 1
    again = bench.engine()
    for _ in range(20):  # it replays
        again.turn(0.0)
    slots = again.parts.scorer.series.slots(PLANT)
    seq = again.parts.scorer.series.state["windows"]["seq"]
    names = {again.parts.scorer.name_of(slot): int(seq[slot]) for slot in slots.tolist()}
    assert names["a"] > 60, "its state went on"


def test_a_large_state_is_written_by_the_loop(bench, monkeypatch):
    monkeypatch.setattr(snapshots, "MAX_COPIED_BYTES", 0)
    bench.fill()
    engine = bench.drain(bench.engine())
    for _ in range(5):
        engine.turn(0.0)
        assert engine.parts.snapshots._written is None
    assert snapshot_offset(bench) == bench.position().next_offset
