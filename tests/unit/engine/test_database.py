"""The database goes away under the engine, or its disk is full: it pauses, polls on, and goes on by itself
with nothing lost and nothing twice.
"""

from __future__ import annotations

import resource
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pipeline.core.types import Fault, FaultKind, Partition
from pipeline.sources.memory import MemorySource
from tests.faults.feed import Log, make_log
from tests.support.engines import UNTIL_A_LEFT, Bench, away_twice, essence, log_that_a_leaves


@pytest.fixture(scope="module")
def logs() -> list[Log]:
    return [make_log(number, 100, seed=5) for number in range(2)]


@pytest.fixture
def make(make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    monkeypatch.setattr("storage.sql.database.LOCK_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr("pipeline.engine.member_partitions.RETRY_SECONDS", 0.01)
    return make


@contextmanager
def locked(bench: Bench) -> Iterator[None]:
    """Somebody else has the file for himself."""
    other = sqlite3.connect(f"{bench.folder}/forewatch.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


def undisturbed(make: Callable[..., Bench], logs: list[Log]) -> list[tuple]:
    bench = make(logs)
    bench.fill()
    bench.drain(bench.engine())
    return essence(bench.anomalies())


def down(bench: Bench) -> list[Fault]:
    return [f for f in bench.faults() if f.kind is FaultKind.DATABASE_DOWN]


def test_away_again_and_again(make, logs):
    bench = make(logs, engine={"max_batch": 60})
    bench.fill()
    engine = bench.engine()
    source = engine.parts.source
    assert isinstance(source, MemorySource)
    times = 0
    for _ in range(30):
        engine.turn(0.0)
        with locked(bench):
            engine.turn(0.0)
            waiting, cursor = list(engine.uncommitted.commits), dict(engine.parts.ownership.cursor)
            before = bench.positions()
            if waiting:
                for _ in range(3):
                    engine.turn(0.0)
                times += 1
                assert source._paused >= set(engine.parts.ownership.positions), "everything is paused"
                assert (engine.uncommitted.commits, engine.parts.ownership.cursor) == (waiting, cursor), (
                    "one batch waits, no more is read"
                )
                assert any(f.kind is FaultKind.DATABASE_DOWN for f in engine.parts.faults.current)
            assert bench.positions() == before
        time.sleep(0.01)
    assert times > 5
    bench.drain(engine)
    bench.check()
    assert essence(bench.anomalies()) == undisturbed(make, logs)
    assert down(bench)
    assert all(f.ended_ns for f in down(bench))


def test_away_while_taking_over(make, logs):
    bench = make(logs)
    bench.fill()
    engine = bench.engine()
    with locked(bench):
        for _ in range(4):
            engine.turn(0.0)
        assert engine.waits_for
    bench.drain(engine)
    bench.check()
    assert [bool(f.ended_ns) for f in down(bench)] == [True]


def test_away_while_a_stored_series_is_fetched(make, monkeypatch):
    """Half of the batch is in the state by then: the partition is taken over again, from its snapshot."""
    from storage.stream_state import offloaded_series

    log = log_that_a_leaves()
    bench = make([log], idle_after="500s", storage={"snapshot_every": "0s"})
    bench.fill(lambda log: UNTIL_A_LEFT)
    engine = bench.drain(bench.engine())
    assert len(engine.parts.scorer.series) == 1, "a has left"
    failures = away_twice(monkeypatch, offloaded_series, "restore")
    bench.fill()
    bench.drain(engine)
    (slot,) = (
        s
        for s in engine.parts.scorer.series.slots(Partition("plant", 0)).tolist()
        if engine.parts.scorer.name_of(s) == "a"
    )
    assert engine.parts.scorer.series.state["windows"]["seq"][slot] > 100
    assert bench.position().counts.read() == len(log.values)
    assert next(failures, None) is None, "it was asked three times"
    assert [bool(f.ended_ns) for f in down(bench)] == [True, True]


def test_the_disk_is_full_for_a_while(make, logs):
    bench = make(logs, engine={"max_batch": 40})
    bench.fill()
    engine = bench.engine()
    for _ in range(3):
        engine.turn(0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (bench.folder / "forewatch.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, hard))
    try:
        for _ in range(20):
            engine.turn(0.0)
        assert any(f.kind is FaultKind.DATABASE_DOWN for f in engine.parts.faults.current)
        stuck = {p: at for p, (at, _) in bench.positions().items()}
        for _ in range(5):
            engine.turn(0.0)
        assert {p: at for p, (at, _) in bench.positions().items()} == stuck
        assert engine.uncommitted.commits
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    bench.drain(engine)
    bench.check()
    assert essence(bench.anomalies()) == undisturbed(make, logs)
