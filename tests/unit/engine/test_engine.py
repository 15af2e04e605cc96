"""The engine on the in-memory log and SQLite, in one run: what every batch, every offset and every gap of the
log comes to.
"""

from __future__ import annotations

import pytest

from pipeline.core.errors import SourceError
from pipeline.core.types import FaultKind, Partition
from tests.faults.feed import Log, record
from tests.support.engines import essence


@pytest.mark.parametrize("size", [3, 50, 20_000])
def test_batches_of_any_size_give_the_same(make, logs, undisturbed, size):
    bench = make(logs, engine={"max_batch": size}, storage={"snapshot_every": "1h"})
    bench.fill()
    bench.drain(bench.engine())
    bench.check()
    assert essence(bench.anomalies()) == undisturbed


def test_the_outcomes_add_up_at_every_commit(make, logs):
    bench = make(logs, engine={"max_batch": 37})
    bench.fill()
    engine = bench.engine()
    commits = 0
    while any(
        (at or 0) < len(log.values)
        for (at, _), log in zip(bench.positions().values() or [(0, None)], logs, strict=False)
    ):
        engine.turn(0.0)
        for number, (at, position) in ((p.number, found) for p, found in bench.positions().items()):
            assert position.counts.read() == at - position.start_offset
            so_far = logs[number].counts(at)
            assert position.counts.dead_lettered == so_far["dead_lettered"]
            assert position.counts.late == so_far["late"]
            commits += 1
    assert commits > 30
    bench.check()


def test_anomalies_say_where_they_come_from(make, logs):
    bench = make(logs)
    bench.fill()
    engine = bench.drain(bench.engine())
    provenance = engine.parts.scorer.provenance
    for anomaly in bench.anomalies():
        assert (anomaly.config_hash, anomaly.model_version) == (
            provenance.config_hash,
            provenance.model_version,
        )
        values = logs[anomaly.partition.number].values
        assert anomaly.series.encode() in values[anomaly.peak_offset]
        assert anomaly.first_offset <= anomaly.peak_offset <= anomaly.last_offset
    other = make(logs, close_after=4)
    other.fill()
    other.drain(other.engine())
    assert {a.config_hash for a in other.anomalies()}.isdisjoint({a.config_hash for a in bench.anomalies()})


def test_an_offset_without_a_record_is_filtered(make, logs):
    bench = make(logs[:1])
    half = len(logs[0].values) // 2
    bench.fill(lambda log: half)
    bench.log.skip(5)
    bench.log.extend(logs[0].values[half:])
    bench.drain(bench.engine())
    position = bench.position()
    assert position.counts.filtered == 5
    assert position.counts.read() == position.next_offset == len(logs[0].values) + 5


def test_a_finished_source_gives_what_was_held_once(make, logs):
    bench = make(logs)
    bench.fill()
    bench.log.finish()
    for _ in range(3):  # started again and again at its end
        engine = bench.engine()
        for _ in range(200):
            engine.turn(0.0)
        assert engine.done
        for number, log in enumerate(logs):
            counts = bench.position(number).counts
            assert (counts.buffered, counts.scored) == (0, log.counts()["scored"])
            assert counts.read() == len(log.values)


def test_killed_between_the_last_flush_and_its_snapshot(make, logs, undisturbed):
    bench = make(logs, storage={"snapshot_every": "1h"})
    bench.fill()
    bench.drain(bench.engine())
    bench.log.finish()
    for _ in range(3):
        engine = bench.engine()
        while not engine.done:
            engine.turn(0.0)
        assert [bench.position(n).counts.scored for n in range(3)] == [log.counts()["scored"] for log in logs]
    assert essence(bench.anomalies()) == undisturbed


def test_a_recreated_log_stops_or_starts_again_by_policy(make, logs):
    bench = make(logs[:1])
    bench.fill()
    bench.drain(bench.engine())
    bench.log.recreate()
    bench.fill()
    stopped = bench.engine()
    for _ in range(10):
        stopped.turn(0.0)
    (fault,) = [f for f in bench.faults() if f.kind is FaultKind.TOPIC_RECREATED]
    assert fault.ended_ns is None
    assert "on_gap: resume-earliest" in fault.message
    assert bench.position().epoch > 1
    before = bench.position()
    assert before.next_offset == len(logs[0].values), "nothing of the new log was read"
    engine = bench.drain(bench.engine(on_gap="resume-earliest"))
    assert engine.parts.ownership.positions[Partition("plant", 0)].identity == bench.log._identity
    bench.log.recreate()  # and while it runs
    bench.fill()
    bench.drain(engine)
    assert bench.position().counts.read() == len(logs[0].values)
    assert bench.position().identity == bench.log._identity
    assert not [f for f in bench.faults() if f.ended_ns is None], "what is mended is over"


def test_retries_of_an_acquisition_are_one_fault(make, logs, monkeypatch):
    """A fault that ended at each retry would send two messages each time."""
    bench = make(logs[:1])
    bench.fill()
    monkeypatch.setattr("pipeline.engine.member_partitions.REACQUIRE_SECONDS", 0.0)
    engine = bench.engine()
    identity = engine.parts.source.identity

    def failing(partition: Partition) -> str:
        raise SourceError(f"{partition}: the log cannot be opened", partition)

    monkeypatch.setattr(engine.parts.source, "identity", failing)
    for _ in range(5):
        engine.turn(0.0)
    (fault,) = [f for f in bench.faults() if f.kind is FaultKind.STUCK_STREAM]
    assert fault.ended_ns is None
    monkeypatch.setattr(engine.parts.source, "identity", identity)
    bench.drain(engine)
    assert not [f for f in bench.faults() if f.ended_ns is None]
    assert bench.position().counts.read() == len(logs[0].values)


@pytest.mark.parametrize("running", [True, False])
def test_a_position_older_than_retention(make, logs, running):
    bench = make(logs[:1])
    half = len(logs[0].values) // 2
    bench.fill(lambda log: half)
    engine = bench.drain(bench.engine())
    buffered = bench.position().counts.buffered
    assert buffered
    bench.fill()
    bench.log.trim(half + 50)
    if not running:
        engine = bench.engine()
    for _ in range(10):
        engine.turn(0.0)
    (fault,) = [f for f in bench.faults() if f.kind is FaultKind.RETENTION_GAP]
    assert f"{half} … {half + 49}" in fault.message
    assert bench.position().next_offset == half
    bench.drain(bench.engine(on_gap="resume-earliest"))
    counts = bench.position().counts
    assert counts.filtered == 50 + buffered, "what was buffered is lost too: its records are gone"
    assert counts.read() == len(logs[0].values)
    after = logs[0].counts()
    after.subtract(logs[0].counts(half + 50))
    before = logs[0].counts(half)
    assert (
        counts.scored + counts.late + counts.duplicate
        == sum((before + after).values()) - counts.dead_lettered - buffered - counts.buffered
    )
    assert counts.dead_lettered == (before + after)["dead_lettered"]
    assert not [f for f in bench.faults() if f.ended_ns is None]


def test_a_snapshot_behind_retention_is_not_replayed_from(make, logs):
    """The position is still there, but the records between snapshot and position are gone: nothing is scored
    twice.
    """
    bench = make(logs[:1], storage={"snapshot_every": "1h"}, engine={"max_batch": 50})
    cut = len(logs[0].values) * 2 // 3
    bench.fill(lambda log: cut)
    bench.drain(bench.engine())
    before = bench.position().counts
    bench.log.trim(cut)
    bench.fill()
    stopped = bench.engine()
    for _ in range(10):
        stopped.turn(0.0)
    assert not stopped.parts.ownership.positions
    (fault,) = bench.faults()
    assert fault.kind is FaultKind.RETENTION_GAP
    assert f"{before.buffered} buffered records" in fault.message
    assert bench.position().counts == before
    bench.drain(bench.engine(on_gap="resume-earliest"))
    counts = bench.position().counts
    assert counts.filtered == before.buffered > 0
    assert counts.read() == len(logs[0].values)
    rest = logs[0].counts()
    rest.subtract(logs[0].counts(cut))
    # A late or duplicate record may be counted as scored now, because the state that had seen it is gone. But
    # no record is counted twice.
    assert (
        counts.scored - before.scored <= rest["scored"] + rest["duplicate"] + rest["late"] - counts.buffered
    )
    assert not [f for f in bench.faults() if f.ended_ns is None]


def test_dead_letters_past_the_limit_stop_the_partition_and_no_other(make, logs):
    bad = Log()
    for second in range(30):
        bad.add(record("b", second, 1.0), "scored")
    for _ in range(60):
        bad.add(b"?", "dead_lettered")
    bad.add(record("b", 200, 1.0), "scored")
    bench = make([bad, logs[1]], engine={"max_batch": 20})
    bench.fill()
    engine = bench.engine()
    for _ in range(200):
        engine.turn(0.0)
    (fault,) = bench.faults()
    assert fault.kind is FaultKind.SCHEMA_BREAK
    assert fault.partition == Partition("plant", 0)
    position = bench.position(0)
    assert 80 <= position.next_offset < len(bad.values), (
        "it stops within the batch that passes the limit (50 in a row)"
    )
    assert position.counts.read() == position.next_offset
    assert (
        position.counts.dead_lettered
        == len([1 for p, _ in bench.dead() if p.number == 0])
        == bad.counts(position.next_offset)["dead_lettered"]
    )
    assert bench.position(1).next_offset == len(logs[1].values)
