"""Sessions that stop with the whole partition: ended by the wall clock, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.core.errors import SourceUnavailable, StorageUnavailable
from pipeline.core.types import Anomaly, AnomalyState, FaultKind, Partition
from pipeline.engine.engine import Engine
from pipeline.engine.silence import Silence
from pipeline.sources.base import Poll
from storage.stream_state import snapshots
from tests.faults.feed import Log
from tests.support.engines import Bench, Tally, essence
from tests.support.events import CYCLE, Event, cycles, encoded, saved_door_model

PLANT = Partition("plant", 0)
#: One whole session, and one that stops after two events.
EVENTS: list[Event] = [*cycles("a", 1), ("b", 600, "badge"), ("b", 601, "unlock")]


@pytest.fixture
def doors(make: Callable[..., Bench], tmp_path: Path) -> Callable[..., Bench]:
    """Return the function that makes a bench of doors from events."""
    model = str(saved_door_model(tmp_path))

    def one(passages: Sequence[Event] = EVENTS, **changes: object) -> Bench:
        values = encoded(passages)
        return make(
            [Log(values, ["scored"] * len(values))],
            **{
                "format": {"json": {"series": "door", "time": "t", "code": "event"}},
                "events": {"idle": "20s", "model": model},
                "lateness": "2s",
                "storage": {"snapshot_every": "1h"},
                "without": ("detector", "every", "limits"),
            }
            | changes,
        )

    return one


def turns(engine: Engine, count: int = 8) -> None:
    for _ in range(count):
        engine.turn(0.0)


def read(bench: Bench, engine: Engine, end: int) -> None:
    """Turn until everything below ``end`` is committed."""
    for _ in range(200):
        engine.turn(0.0)
        if PLANT in bench.positions() and bench.position().next_offset == end:
            return
    raise AssertionError(bench.positions())


def told(anomaly: Anomaly) -> tuple[object, ...]:
    return anomaly.series, anomaly.cause, anomaly.state, anomaly.end_ns


def as_stored(bench: Bench) -> list[str]:
    """Return the anomalies with their revisions, as texts: numbers that are missing are not equal."""
    return [repr(anomaly) for anomaly in bench.anomalies()]


def test_a_partition_without_further_records_tells_what_is_missing(doors, clock):
    bench = doors()
    bench.fill()
    engine = bench.engine()
    read(bench, engine, len(EVENTS))
    turns(engine)
    assert bench.anomalies() == []
    clock(21.0)  # of 20 s idle and 2 s lateness
    turns(engine)
    assert bench.anomalies() == []
    clock(2.0)
    turns(engine)
    (anomaly,) = bench.anomalies()
    end = (1_750_000_601 + 20) * 10**9
    assert told(anomaly) == ("b", "missing_event", AnomalyState.CLOSED, end)
    assert anomaly.revision == 1
    position = bench.position()
    assert position.counts.buffered == 0
    assert position.counts.scored == len(EVENTS)
    clock(100.0)
    turns(engine)
    assert bench.position() == position, "it is told once"


def test_the_verdict_is_that_of_a_backfill_up_to_the_end_of_data(doors, clock):
    live, past = doors(), doors()
    for bench in (live, past):
        bench.fill()
    tally, whole = Tally(), Tally()
    engine = live.engine(sinks=[tally])
    read(live, engine, len(EVENTS))
    turns(engine)
    clock(30.0)
    turns(engine)
    past.log.finish()
    engine = past.engine(sinks=[whole])
    while not engine.done:
        engine.turn(0.0)
    assert essence(live.anomalies()) == essence(past.anomalies()) != []
    assert _surprises(tally) == _surprises(whole)


def _surprises(tally: Tally) -> list[tuple[int, bytes]]:
    return [
        (int(one.scored.points.time[row]), one.scored.verdicts.surprise[row].tobytes())
        for one in tally.results
        if one.scored is not None
        for row in range(len(one.scored.points))
    ]


@pytest.mark.parametrize("stage", ["before the snapshot", "after the snapshot", "no snapshot yet"])
def test_a_crash_after_the_end_tells_nothing_twice_and_forgets_nothing(doors, clock, monkeypatch, stage):
    bench = doors(storage={"snapshot_every": "1h" if stage == "no snapshot yet" else "1ms"})
    bench.fill()
    engine, save = bench.engine(), snapshots.save
    read(bench, engine, len(EVENTS))
    turns(engine)
    if stage == "before the snapshot":
        monkeypatch.setattr(snapshots, "save", _away)
    clock(30.0)
    engine.turn(0.0)
    first = as_stored(bench)
    assert len(first) == 1
    monkeypatch.setattr(snapshots, "save", save)
    engine = bench.engine()
    # The session has ended: what follows within its time is late, and the next session is another one.
    further = [("b", 610, "open"), *cycles("b", 1, 700)]
    bench.log.extend(encoded(further), 0)
    read(bench, engine, len(EVENTS) + len(further))
    turns(engine)
    assert as_stored(bench) == first
    assert bench.position().counts.late == 1
    assert bench.late() == [(PLANT, len(EVENTS))]
    clock(30.0)
    engine = bench.engine()
    turns(engine, 20)
    clock(30.0)
    turns(engine, 20)
    assert as_stored(bench) == first
    assert bench.position().counts.read() == len(EVENTS) + len(further)


def _away(*arguments: object, **named: object) -> int:
    raise StorageUnavailable("away")


def test_nothing_is_read_before_the_end_is_stored(doors, clock, monkeypatch):
    bench = doors(storage={"snapshot_every": "1h"})
    bench.fill()
    engine, save = bench.engine(), snapshots.save
    read(bench, engine, len(EVENTS))
    turns(engine)
    monkeypatch.setattr(snapshots, "save", _away)
    clock(30.0)
    turns(engine, 3)
    bench.log.extend(encoded([("b", 610, "open")]), 0)
    for _ in range(5):
        clock(1.0)
        turns(engine, 3)
    assert bench.position().next_offset == len(EVENTS)
    monkeypatch.setattr(snapshots, "save", save)
    for _ in range(20):
        clock(1.0)
        turns(engine, 3)
    assert bench.position().next_offset == len(EVENTS) + 1
    assert len(bench.anomalies()) == 1
    # 610 waits for the watermark; with the next events it is late.
    bench.log.extend(encoded(cycles("a", 1, 700)), 0)
    turns(engine)
    assert bench.position().counts.late == 1


def test_an_outage_of_the_source_is_no_silence(doors, clock, monkeypatch):
    bench = doors()
    bench.fill()
    engine = bench.engine()
    read(bench, engine, len(EVENTS))
    turns(engine)
    bounds = engine.parts.source.bounds

    def down(partitions: object) -> None:
        raise SourceUnavailable("down")

    monkeypatch.setattr(engine.parts.source, "bounds", down)
    clock(30.0)
    turns(engine)
    monkeypatch.setattr(engine.parts.source, "bounds", bounds)
    turns(engine)
    assert bench.anomalies() == []
    rest = [("b", 602 + n, code) for n, code in enumerate(CYCLE[2:])]
    bench.log.extend(encoded(rest), 0)
    turns(engine)
    clock(30.0)
    turns(engine)
    assert bench.anomalies() == [], "what came after the outage belongs to the session"
    assert bench.position().counts.scored == len(EVENTS) + len(rest)


def test_a_record_that_does_not_arrive_is_no_silence(doors, clock, monkeypatch):
    """A fetch may take longer than the idle time, and the record that it brings belongs to the session."""
    bench = doors()
    bench.fill()
    engine = bench.engine()
    read(bench, engine, len(EVENTS))
    turns(engine)
    poll = engine.parts.source.poll
    monkeypatch.setattr(engine.parts.source, "poll", lambda most, timeout: Poll())
    rest = [("b", 602 + n, code) for n, code in enumerate(CYCLE[2:])]
    bench.log.extend(encoded(rest[:1]), 0)
    turns(engine)
    clock(30.0)
    turns(engine)
    assert bench.anomalies() == []
    monkeypatch.setattr(engine.parts.source, "poll", poll)
    bench.log.extend(encoded(rest[1:]), 0)
    read(bench, engine, len(EVENTS) + len(rest))
    clock(30.0)
    turns(engine)
    assert bench.anomalies() == []
    assert bench.position().counts.scored == len(EVENTS) + len(rest)


def test_a_session_whose_rest_is_deleted_has_no_end(doors, clock):
    """Records were deleted while no process read the topic: the end of its session is unknown."""
    bench = doors([*EVENTS, ("c", 602, "badge"), ("c", 602.5, "unlock"), ("c", 603, "open")])
    bench.fill()
    engine = bench.engine()
    read(bench, engine, len(EVENTS) + 3)
    engine.close()
    bench.open.clear()
    rest = [
        *(("b", 604 + n, code) for n, code in enumerate(CYCLE[2:])),
        ("c", 608, "close"),
        ("c", 609, "lock"),
    ]
    later = [*cycles("a", 1, 3000), *cycles("b", 1, 3100), *cycles("c", 1, 3200)]
    bench.log.extend(encoded([*rest, *later]), 0)
    bench.log.trim(len(EVENTS) + 3 + len(rest), 0)
    engine = bench.engine(on_gap="resume-earliest")
    read(bench, engine, len(EVENTS) + 3 + len(rest) + len(later))
    turns(engine)
    clock(30.0)
    turns(engine)
    assert bench.anomalies() == []
    assert [fault.kind for fault in bench.faults()] == [FaultKind.RETENTION_GAP]
    position = bench.position()
    assert position.counts.read() == len(EVENTS) + 3 + len(rest) + len(later)
    assert position.counts.buffered == 0


def test_without_idle_nothing_ends_by_the_clock(doors, clock, tmp_path):
    bench = doors(events={"end": ["lock"], "model": str(tmp_path / "doors-model")})
    bench.fill()
    engine = bench.engine()
    assert not engine.parts.silence.is_used
    read(bench, engine, len(EVENTS))
    clock(1e6)
    turns(engine)
    assert bench.anomalies() == []


def test_silence_counts_from_the_last_change_of_a_log():
    silence, a, b = Silence(True), Partition("t", 0), Partition("t", 1)
    silence.observe({a: (5, 5), b: (5, 7)}, 0.0)
    silence.observe({a: (6, 6), b: (7, 7)}, 5.0)  # the mark of a transaction was written behind a record
    silence.observe({a: (6, 6), b: (7, 7)}, 14.0)
    assert silence.seconds(15.0) == {a: 10.0, b: 10.0}
    silence.observe({b: (7, 7)}, 15.0)
    assert silence.seconds(15.0) == {b: 10.0}
    silence.clear()
    assert silence.seconds(100.0) == {}


def test_a_folder_is_silent_after_a_file_that_was_written_while_it_was_read():
    silence, a, b = Silence(True, together=True), Partition("a.csv", 0), Partition("b.csv", 0)
    silence.observe({a: (5, 5)}, 0.0)
    assert silence.seconds(50.0) == {}, "a file that was moved there"
    silence.observe({a: (6, 6)}, 50.0)
    assert silence.seconds(60.0) == {a: 10.0}
    silence.observe({a: (6, 6), b: (2, 2)}, 60.0)
    assert silence.seconds(70.0) == {}
    silence.end([b])
    silence.observe({a: (6, 6), b: (3, 3)}, 65.0)
    assert silence.seconds(70.0) == {a: 5.0, b: 5.0}
    silence.observe({a: (6, 6), b: (3, 9)}, 75.0)
    assert silence.seconds(80.0) == {}, "one of them is not read to its end"
    silence.end([b])
    silence.observe({a: (6, 6), b: (9, 9)}, 85.0)
    assert silence.seconds(95.0) == {a: 10.0, b: 10.0}
