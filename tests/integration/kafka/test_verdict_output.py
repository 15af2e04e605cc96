"""Verdicts in a topic of a real broker: each once, whatever stops in between."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import OutputUnavailable
from pipeline.core.iso_times import show_time
from pipeline.core.types import FaultKind, Partition
from pipeline.engine.engine import Engine
from pipeline.outputs.kafka_transactions import WrittenPosition
from tests.faults.feed import Log, make_log, record
from tests.support.engines import Bench
from tests.support.kafka_server import FaultyBroker, Topics
from tests.support.verdict_topics import OutputMaker, ReadVerdict, read_topic, wait_until

pytestmark = pytest.mark.kafka


def points(found: list[ReadVerdict]) -> Counter[tuple[str, str]]:
    return Counter((one.verdict.series, one.verdict.time) for one in found)


class Outputs:
    """Engines on an in-memory log with an output to a topic."""

    def __init__(self, folder: Path, template: Path, broker: str, topic: str, **settings: Any) -> None:
        self.logs = [make_log(0, 60), make_log(1, 60)]
        self.bench = Bench(folder, template, self.logs)
        self.maker = OutputMaker(broker, topic, settings)

    def engine(self) -> Engine:
        return self.bench.engine(history=True, make_outputs=self.maker)

    def drain(self, engine: Engine) -> Engine:
        """Read everything, and also again what an earlier engine has committed."""
        self.bench.drain(engine)
        ownership = engine.parts.ownership

        def caught_up() -> bool:
            engine.turn(0.0)
            return not any(map(ownership.recovering, ownership.positions))

        wait_until(caught_up, "the replay ends")
        return engine

    def read(self) -> list[ReadVerdict]:
        return read_topic(self.maker.broker, self.maker.topic)

    def scored(self) -> Counter[tuple[str, str]]:
        """Return the points of the recorded history, which has each scored point once."""
        table = self.bench.history()
        times = table.column("time").to_pylist()
        return Counter(
            (name, show_time(time))
            for name, time in zip(table.column("series").to_pylist(), times, strict=True)
        )


@pytest.fixture(params=["kafka-python", "confluent"])
def outputs(
    tmp_path: Path, sqlite_template: Path, topics: Topics, request: pytest.FixtureRequest
) -> Iterator[Outputs]:
    topic = topics.create(partitions=3)
    settings = {"rows": "all", "client": request.param}
    made = Outputs(tmp_path / "bench", sqlite_template, topics.broker, topic, **settings)
    yield made
    made.bench.close()


def test_every_point_has_one_message_keyed_by_series(outputs):
    outputs.bench.fill()
    outputs.drain(outputs.engine()).close()
    outputs.bench.open.clear()
    found = outputs.read()
    assert points(found) == outputs.scored()
    assert set(points(found).values()) == {1}
    assert len({one.verdict.id for one in found}) == len(found)
    by_series: dict[str, set[int]] = {}
    for one in found:
        verdict = one.verdict
        assert one.key == verdict.series
        assert one.headers == {"id": verdict.id, "content-type": "application/json"}
        assert verdict.labels == {"s": verdict.series}
        assert verdict.source.topic == "plant"
        assert verdict.flag == (verdict.values["v"] > 100)
        assert verdict.quantity is None or verdict.quantity.observed > 100
        by_series.setdefault(verdict.series, set()).add(one.partition)
    assert {len(partitions) for partitions in by_series.values()} == {1}
    assert any(one.verdict.quantity is not None for one in found)


def test_flagged_rows_only(tmp_path, sqlite_template, topics):
    outputs = Outputs(tmp_path / "bench", sqlite_template, topics.broker, topics.create())
    outputs.bench.fill()
    outputs.drain(outputs.engine()).close()
    outputs.bench.open.clear()
    found = outputs.read()
    table = outputs.bench.history()
    assert len(found) == sum(table.column("flag").to_pylist()) > 10
    assert all(one.verdict.flag for one in found)
    outputs.bench.close()


def test_an_engine_that_dies_before_it_writes_leaves_it_to_the_next(outputs, monkeypatch):
    """The next owner replays what is in the database and not in the topic."""
    engine = outputs.engine()
    outputs.bench.fill(lambda log: len(log.values) // 3)
    outputs.drain(engine)
    monkeypatch.setattr(engine.parts.snapshots, "_every", 1e9)  # the next one replays from here
    output = outputs.maker.made[-1]
    wait_until(lambda: not output._waiting_rows, "the first part is written")
    monkeypatch.setattr(output, "_ready", list)  # the thread of the output stands still
    outputs.bench.fill()
    outputs.drain(engine)
    assert output._waiting_rows
    outputs.drain(outputs.engine()).close()
    assert points(outputs.read()) == outputs.scored()
    for partition in list(output._open):  # the dead one does not wait to write either
        output.drop(partition)


def test_a_transaction_of_unknown_outcome_is_not_written_twice(outputs, monkeypatch):
    engine = outputs.engine()
    outputs.bench.fill(lambda log: 10)
    outputs.drain(engine)
    output = outputs.maker.made[-1]
    wait_until(lambda: not output._waiting_rows, "the first part is written")
    writer = type(next(iter(output._open.values())).writer)
    write, failures = writer.write, iter((True, True))

    def committed_without_an_answer(self, messages, position):
        refused = write(self, messages, position)
        if next(failures, False):
            raise OutputUnavailable("the answer was lost")
        return refused

    monkeypatch.setattr(writer, "write", committed_without_an_answer)
    outputs.bench.fill()
    outputs.drain(engine).close()
    outputs.bench.open.clear()
    assert points(outputs.read()) == outputs.scored()


def test_a_former_owner_cannot_write_any_more(outputs):
    """It is frozen while another process takes its partitions."""
    first = outputs.engine()
    outputs.bench.fill(lambda log: 60)
    outputs.drain(first)
    old = outputs.maker.made[-1]
    wait_until(lambda: not old._waiting_rows, "the first part is written")
    frozen = {partition: one.writer for partition, one in old._open.items()}
    outputs.bench.fill()
    outputs.drain(outputs.engine()).close()
    for writer in frozen.values():
        with pytest.raises(OutputUnavailable, match=r"(?i)fenced|epoch"):
            writer.write([], WrittenPosition(10**6, False, ""))
    assert points(outputs.read()) == outputs.scored()


CLIENTS = ["kafka-python", pytest.param("confluent", marks=pytest.mark.long)]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_that_stands_still_waits_for_its_topic(
    tmp_path: Path, sqlite_template: Path, faulty_broker: FaultyBroker, client: str
):
    """The brokers go away and come back: reading stops and goes on by itself."""
    made = Topics(faulty_broker.address)
    topic = made.create()
    made.close()
    values = [record("a", second, 20.0 + second % 5) for second in range(5_000)]
    settings = {"rows": "all", "buffer": 1_000, "client": client}
    outputs = Outputs(tmp_path / "bench", sqlite_template, faulty_broker.address, topic, **settings)
    outputs.bench = Bench(
        tmp_path / "one", sqlite_template, [Log(values, ["scored"] * len(values))], lateness="0s"
    )
    engine = outputs.engine()
    outputs.bench.fill(lambda log: 100)
    outputs.drain(engine)
    output = outputs.maker.made[-1]
    wait_until(lambda: not output._waiting_rows, "the first part is written")
    faulty_broker.freeze()
    outputs.bench.fill()

    def stands_still() -> bool:
        engine.turn(0.0)
        return output.full and bool(output.problem)

    wait_until(stands_still, "reading stops")
    for _ in range(20):
        engine.turn(0.0)
    read = engine.parts.ownership.positions[Partition("plant", 0)].next_offset
    assert read < 3_000
    assert {fault.kind for fault in outputs.bench.faults()} == {FaultKind.OUTPUT_DOWN}
    faulty_broker.thaw()
    outputs.drain(engine)
    wait_until(lambda: not output._waiting_rows, "everything is written")
    engine.turn(0.0)
    assert engine.parts.faults.current == []
    engine.close()
    outputs.bench.open.clear()
    assert points(outputs.read()) == outputs.scored()
    assert len(outputs.scored()) == 5_000
    outputs.bench.close()


def test_a_topic_that_does_not_exist_is_named(tmp_path, sqlite_template, topics):
    outputs = Outputs(tmp_path / "bench", sqlite_template, topics.broker, "no-such-topic")
    engine = outputs.engine()
    outputs.bench.fill()
    wait_until(lambda: engine.turn(0.0) or bool(engine.parts.faults.current), "a fault")
    (fault,) = engine.parts.faults.current
    assert fault.kind == FaultKind.OUTPUT_DOWN
    assert "there is no topic no-such-topic" in fault.message
    outputs.bench.close()


def test_a_partition_lost_during_a_transaction_does_not_stop_the_output(outputs, monkeypatch):
    """The client of the lost partition is closed by the thread that waits for it."""
    engine = outputs.engine()
    outputs.bench.fill(lambda log: 40)
    outputs.drain(engine)
    output = outputs.maker.made[-1]
    wait_until(lambda: not output._waiting_rows, "the first part is written")
    lost, kept = output._open[Partition("plant", 0)], output._open[Partition("plant", 1)]
    write, begun, go_on = type(lost.writer).write, threading.Event(), threading.Event()

    def slow(self, messages, position):
        if self is lost.writer:
            begun.set()
            go_on.wait(60)
        return write(self, messages, position)

    monkeypatch.setattr(type(lost.writer), "write", slow)
    outputs.bench.fill(lambda log: 80)
    outputs.drain(engine)
    assert begun.wait(60)
    output.drop(Partition("plant", 0))
    assert lost.writer._producer is not None
    go_on.set()
    wait_until(lambda: lost.writer._producer is None, "the client is closed")
    wait_until(lambda: not kept.queue, "the other partition is written")
    engine.close()
    outputs.bench.open.clear()
