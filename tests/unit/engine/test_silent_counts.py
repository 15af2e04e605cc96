"""Counts that fall to zero because a whole partition stopped: rows by the clock of the machine, once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pipeline.config.outputs import RemoteWriteConfig
from pipeline.core.errors import StorageUnavailable
from pipeline.engine.engine import Engine
from pipeline.observability.metrics import Metrics, OutputMetrics
from pipeline.outputs.remote_write import RemoteWriteOutput
from storage.stream_state import snapshots
from tests.faults.feed import START_MS, Log
from tests.support.engines import Bench, Tally
from tests.support.receiver import Receiver, answer
from tests.support.remote_write_decoder import decoded
from tests.support.verdict_topics import wait_until
from tests.unit.engine.test_silent_sessions import as_stored, read, turns

MINUTE_MS = START_MS - START_MS % 60_000
#: Minutes with records; the limit ``least`` makes an interval without records an anomaly at once.
LIVE = 30
CHANGES: dict[str, Any] = {
    "format": {"json": {"series": "host", "time": "t", "values": []}},
    "aggregate": {"every": "1m", "values": {"lines": "count"}},
    "lateness": "5s",
    "limits": {"lines": {"min": 1}},
    "storage": {"snapshot_every": "1h"},
    "without": ("every",),
}

Row = tuple[str, int, float, bytes]


def lines(minutes: Iterable[int], host: str = "web-1") -> list[bytes]:
    """Return two lines of a host in each minute."""
    return [
        json.dumps({"host": host, "t": MINUTE_MS + minute * 60_000 + second * 1000, "v": 1}).encode()
        for minute in minutes
        for second in (10, 40)
    ]


@pytest.fixture
def counts(make: Callable[..., Bench]) -> Callable[..., Bench]:
    """Return the function that makes a bench of counted lines."""

    def one(values: list[bytes], **changes: Any) -> Bench:
        bench = make([Log(values, ["scored"] * len(values))], **CHANGES | changes)
        bench.fill()
        return bench

    return one


def silence(engine: Engine, clock: Callable[[float], None], seconds: int, step: float = 5.0) -> None:
    """Let the engine check a partition without records for some time."""
    for _ in range(int(seconds / step)):
        clock(step)
        turns(engine, 2)


def rows_of(tally: Tally) -> list[Row]:
    """Return series, minute, count and verdict of each row."""
    found = []
    for one in tally.results:
        if one.scored is None:
            continue
        points, verdicts = one.scored.points, one.scored.verdicts
        for row in range(len(points)):
            minute = (int(points.time[row]) // 10**6 - MINUTE_MS) // 60_000
            verdict = verdicts.score[row].tobytes() + verdicts.surprise[row].tobytes()
            found.append((int(points.slot[row]), minute, float(points.values[row, 0]), verdict))
    return found


def test_a_partition_that_stops_counts_zero_by_the_clock(counts, clock):
    bench, tally = counts(lines(range(LIVE))), Tally()
    engine = bench.engine(sinks=[tally])
    read(bench, engine, 2 * LIVE)
    turns(engine)
    assert [row[1] for row in rows_of(tally)] == list(range(LIVE - 1)), "the last minute is open"
    silence(engine, clock, 80)  # the last line is 20 s before the end of its minute
    assert rows_of(tally)[-1][1:3] == (LIVE - 2, 2.0)
    silence(engine, clock, 10)
    assert rows_of(tally)[-1][1:3] == (LIVE - 1, 2.0)
    assert bench.anomalies() == []
    silence(engine, clock, 60)
    assert rows_of(tally)[-1][1:3] == (LIVE, 0.0)
    (anomaly,) = bench.anomalies()
    assert (anomaly.series, anomaly.observed) == ("web-1", [0.0])
    silence(engine, clock, 300)
    assert [row[1] for row in rows_of(tally)] == list(range(LIVE + 6))
    position = bench.position()
    assert (position.next_offset, position.counts.scored, position.counts.buffered) == (2 * LIVE, 2 * LIVE, 0)
    assert position.watermark_ns == (MINUTE_MS + (LIVE + 6) * 60_000) * 10**6


def test_rows_of_zero_end_as_those_of_a_hole_in_the_log_do(counts, clock):
    bench, tally = counts(lines(range(90))), Tally()
    engine = bench.engine(sinks=[tally])
    read(bench, engine, 180)
    turns(engine)
    silence(engine, clock, 3 * 3600, step=60.0)
    commits = bench.position().commits
    silence(engine, clock, 3600, step=60.0)
    assert bench.position().commits == commits
    assert [row[1] for row in rows_of(tally)] == list(range(90 + 60))


def test_the_rows_are_those_of_a_backfill_over_the_same_span(counts, clock):
    further = lines(range(50, 60))
    live, past = counts(lines(range(LIVE))), counts([*lines(range(LIVE)), *further])
    first, second = Tally(), Tally()
    engine = live.engine(sinks=[first])
    read(live, engine, 2 * LIVE)
    turns(engine)
    silence(engine, clock, 17 * 60)
    live.log.extend(further, 0)
    read(live, engine, 2 * LIVE + len(further))
    past.drain(past.engine(sinks=[second]))
    assert {row[1] for row in rows_of(first)} >= set(range(LIVE, LIVE + 15))
    assert rows_of(first) == rows_of(second)
    same = [list(found) for found in (live.anomalies(), past.anomalies())]
    assert [(a.id, a.start_ns, a.end_ns, a.points, a.score) for a in same[0]] == [
        (a.id, a.start_ns, a.end_ns, a.points, a.score) for a in same[1]
    ]
    assert same[0] != []
    assert live.position().counts == past.position().counts


@pytest.mark.parametrize("stage", ["before the snapshot", "after the snapshot"])
def test_a_crash_in_a_silence_counts_nothing_twice_and_forgets_nothing(counts, clock, monkeypatch, stage):
    bench, save = counts(lines(range(LIVE))), snapshots.save
    engine = bench.engine(history=True)
    read(bench, engine, 2 * LIVE)
    turns(engine)
    silence(engine, clock, 150)
    if stage == "before the snapshot":
        monkeypatch.setattr(snapshots, "save", _away)
    silence(engine, clock, 60, step=30.0)
    before, reached = as_stored(bench), bench.position().watermark_ns
    assert reached is not None
    assert len(before) == 1
    monkeypatch.setattr(snapshots, "save", save)
    engine = bench.engine(history=True)
    turns(engine, 20)
    assert (as_stored(bench), bench.position().watermark_ns) == (before, reached)
    silence(engine, clock, 240)
    # The silence goes on with the new process, whose own time counts.
    after = bench.position().watermark_ns
    assert reached + 180 * 10**9 <= after <= reached + 300 * 10**9
    late = lines([LIVE + 1])
    bench.log.extend([*late, *lines(range(60, 75))], 0)
    read(bench, engine, 2 * LIVE + len(late) + 30)
    turns(engine)
    assert bench.position().counts.late == len(late)
    (anomaly,) = bench.anomalies()
    engine.parts.snapshots.take_all(engine.parts.ownership)
    times = bench.history().column("time").to_pylist()
    assert len(times) == len(set(times)) == 74, "each row is recorded once"
    assert anomaly.state == "closed"


def _away(*arguments: object, **named: object) -> int:
    raise StorageUnavailable("away")


def test_an_upload_that_comes_late_is_waited_for_the_next_time(counts, clock):
    bench, tally = counts(lines(range(LIVE))), Tally()
    engine = bench.engine(sinks=[tally])
    read(bench, engine, 2 * LIVE)
    turns(engine)
    first = LIVE
    for upload in range(4):
        silence(engine, clock, 600)
        values = lines(range(first, first + 10))
        bench.log.extend(values, 0)
        end = bench.log._logs[0].end
        read(bench, engine, end)
        turns(engine)
        late = bench.position().counts.late
        if upload == 0:
            lost = late
            assert lost > 0, "the first upload is not known to be one"
        first += 10
    assert late == lost
    zeros = [row for row in rows_of(tally) if row[2] == 0]
    assert len(zeros) < 10
    silence(engine, clock, 3000)
    assert len([row for row in rows_of(tally) if row[2] == 0]) > 20 + len(zeros), "that they stop is told"


def test_a_configured_silence_is_waited_for(counts, clock):
    settings = {"every": "1m", "values": {"lines": "count"}, "silence": "30m"}
    bench, tally = counts(lines(range(LIVE)), aggregate=settings), Tally()
    engine = bench.engine(sinks=[tally])
    read(bench, engine, 2 * LIVE)
    turns(engine)
    silence(engine, clock, 30 * 60)
    assert {row[2] for row in rows_of(tally)} == {2.0}
    silence(engine, clock, 5 * 60)
    assert rows_of(tally)[-1][2] == 0.0


def test_means_have_no_rows_of_silence(counts, clock):
    form = {"json": {"series": "host", "time": "t", "values": ["v"]}}
    settings = {"every": "1m", "values": {"v": "mean"}}
    bench = counts(lines(range(LIVE)), aggregate=settings, format=form, limits={})
    engine = bench.engine()
    assert not engine.parts.silence.is_used
    read(bench, engine, 2 * LIVE)
    commits = bench.position().commits
    silence(engine, clock, 600)
    assert bench.position().commits == commits


def test_a_state_of_before_goes_on(counts, clock, monkeypatch):
    from pipeline.windows.aggregation import AggregationBuffer

    bench, written = counts(lines(range(LIVE))), AggregationBuffer.to_arrays

    def as_before(buffer: AggregationBuffer) -> tuple[dict[str, Any], list[Any]]:
        arrays, keys = written(buffer)
        return {name: one for name, one in arrays.items() if name != "silent_time"}, keys

    monkeypatch.setattr(AggregationBuffer, "to_arrays", as_before)
    engine = bench.engine()
    read(bench, engine, 2 * LIVE)
    engine.parts.snapshots.take_all(engine.parts.ownership)
    monkeypatch.setattr(AggregationBuffer, "to_arrays", written)
    engine = bench.engine()
    turns(engine)
    silence(engine, clock, 300)
    assert bench.position().watermark_ns > (MINUTE_MS + LIVE * 60_000) * 10**6
    assert len(bench.anomalies()) == 1


def test_after_a_takeover_rows_by_the_clock_are_sent_too(counts, clock):
    """Rows that no record has caused have the offset at which the new owner began."""
    bench = counts(lines(range(LIVE)))
    engine = bench.engine()
    read(bench, engine, 2 * LIVE)
    turns(engine)
    engine.parts.snapshots.take_all(engine.parts.ownership)
    with Receiver(answer(204, b"")) as receiver:
        config = RemoteWriteConfig(url=receiver.url, series="all")
        counters = OutputMetrics(Metrics(), "plant", "graphs")
        successor = bench.engine(
            make_outputs=lambda scorer: [RemoteWriteOutput("graphs", config, scorer, counters)]
        )
        turns(successor, 20)
        assert receiver.received == [], "what its predecessor sent is not sent again"
        silence(successor, clock, 300)
        (output,) = successor.parts.writers.outputs
        wait_until(lambda: not output._waiting, "everything is sent")
    sent = [
        (value, (at - MINUTE_MS) // 60_000)
        for request in receiver.received
        for labels, pairs in decoded(request.body)
        if labels["__name__"] == "forewatch_verdict_value"
        for value, at in pairs
    ]
    assert sent[:3] == [(2.0, LIVE - 1), (0.0, LIVE), (0.0, LIVE + 1)]
    assert bench.position().next_offset == 2 * LIVE
