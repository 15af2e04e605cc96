"""Snapshots leave time for records, and wait for no long write."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pipeline.engine import snapshots
from storage.history.segments import SegmentStore
from tests.faults.feed import make_log
from tests.support.engines import Bench

PARTITIONS, SNAPSHOT_SECONDS, EVERY_SECONDS = 4, 1.0, 60.0


class Clock:
    """Clock of the snapshots, of which each takes ``SNAPSHOT_SECONDS``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.taken: list[float] = []
        save = snapshots.snapshots.save

        def slow_save(*arguments, **named):
            self.taken.append(self.now)
            self.now += SNAPSHOT_SECONDS
            return save(*arguments, **named)

        monkeypatch.setattr(snapshots.snapshots, "save", slow_save)
        monkeypatch.setattr(snapshots, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def bench(make) -> Bench:
    return make(
        [make_log(number, 120) for number in range(PARTITIONS)],
        storage={"snapshot_every": f"{EVERY_SECONDS:.0f}s"},
        engine={"max_batch": 20},
    )


def committed(engine) -> int:
    return sum(at.next_offset or 0 for at in engine.parts.ownership.positions.values())


def turns(engine, clock: Clock, count: int, seconds: float) -> None:
    for _ in range(count):
        engine.turn(0.0)
        engine.parts.snapshots.wait()
        clock.now += seconds


def test_snapshots_that_are_due_together_are_spread(bench, monkeypatch):
    bench.fill()
    engine, clock = bench.engine(), Clock(monkeypatch)
    turns(engine, clock, 2 * PARTITIONS, 0.0)
    assert len(clock.taken) == PARTITIONS, "the first ones are taken at once"
    clock.now += EVERY_SECONDS
    clock.taken.clear()
    turns(engine, clock, 60, 0.5)
    pauses = [
        later - one - SNAPSHOT_SECONDS for one, later in zip(clock.taken, clock.taken[1:], strict=False)
    ]
    assert len(clock.taken) == PARTITIONS
    wanted = SNAPSHOT_SECONDS * (1 / snapshots.MAX_SNAPSHOT_SHARE - 1)
    assert all(wanted <= pause < wanted + 1 for pause in pauses), pauses


def test_each_partition_has_its_snapshot_in_time(bench, monkeypatch):
    """Where snapshots take more than their share, the interval is kept."""
    monkeypatch.setattr(snapshots, "MAX_SNAPSHOT_SHARE", 0.001)
    bench.fill()
    engine, clock = bench.engine(), Clock(monkeypatch)
    turns(engine, clock, 2 * PARTITIONS, 0.0)
    clock.now += EVERY_SECONDS
    clock.taken.clear()
    turns(engine, clock, 140, 0.5)
    assert clock.taken[PARTITIONS - 1] - clock.taken[0] < EVERY_SECONDS


def test_a_snapshot_waits_in_later_turns_for_the_recorded_history(bench, monkeypatch):
    bench.fill()
    engine, clock = bench.engine(history=True), Clock(monkeypatch)
    turns(engine, clock, 2 * PARTITIONS, 0.0)
    clock.now += EVERY_SECONDS
    clock.taken.clear()
    may_write, write = threading.Event(), SegmentStore.write

    def slow_write(store, segment, data):
        assert may_write.wait(60)
        write(store, segment, data)

    monkeypatch.setattr(SegmentStore, "write", slow_write)
    before = committed(engine)
    turns(engine, clock, 5, 0.5)
    assert committed(engine) > before, "the loop reads on while the segment is written"
    assert not clock.taken
    may_write.set()
    while not clock.taken:
        turns(engine, clock, 1, 0.5)
    bench.drain(engine)
    bench.check()
