"""Time from a record to its committed verdict at half of the reached rate.

    python -m benchmarks.latency [--detector standard] [--seconds 35] [--rate 60000]

A real broker, an engine with recorded history as in a daemon, and a producer in a process of its own that
stamps each record with the wall clock. First the topic holds records that wait, and the rate at which they
are read is measured. Then records come at half of this rate. The latency of a record is the wall clock when
the COMMIT of its batch returned, minus its stamp. Snapshots fall into the measured time; its first seconds do
not count.

Broker, producer and engine share the machine. So the CPU that each of them and each thread of the engine
takes for a record is printed, and how many cores are needed at the rate. Where that is nearly all of them,
records wait for a core, and the latency is that of the machine. The turns of the engine that took longest are
printed with the time of their phases, and how long records took to the broker, waited there to be read, and
were in the loop.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections import defaultdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

if TYPE_CHECKING:
    from pipeline.engine.engine import Engine
    from pipeline.local_kafka.broker import LocalBroker
    from pipeline.sources.base import Poll, Source

TOPIC, PARTITIONS = "latency", 4
#: Beginning of the paced records that does not count.
SETTLING_SECONDS = 3.0
#: Share of the waiting records after which the rate is measured: series begin in the first ones.
BEGINNING = 0.4
#: Most records with one stamp, and the pause of the producer between two bursts.
BURST, PAUSE_SECONDS = 5_000, 0.005
#: Turns whose phases are printed.
SLOWEST = 5
#: Of so many records of a poll one is followed on its way.
FOLLOWED = 50
QUANTILES = (50, 90, 99)


FIRST_RECORD = b'{"sensor":"s00000","ts":%019d,"value":00.000}' % 0
#: Bytes of a record that hold the clock of the producer, ns.
STAMP = slice(FIRST_RECORD.index(b"0" * 19), FIRST_RECORD.index(b"0" * 19) + 19)


class RecordMaker:
    """Makes records of equal length, faster than by formatting each."""

    def __init__(self, series: int) -> None:
        """Format one record of each series."""
        self._value = FIRST_RECORD.index(b"00.000")
        rows = [b'{"sensor":"s%05d","ts":%019d,"value":00.000}' % (number, 0) for number in range(series)]
        self._rows = np.array(rows).view(np.uint8).reshape(series, -1)
        values = [b"%.3f" % (20 + number / 100) for number in range(97)]
        self._values = np.array(values).view(np.uint8).reshape(97, -1)

    def records(self, numbers: np.ndarray, stamp_ns: int) -> list[bytes]:
        """Return the records with these numbers; the series come in turn."""
        rows = self._rows[numbers % len(self._rows)]
        rows[:, STAMP] = np.frombuffer(b"%019d" % stamp_ns, np.uint8)
        rows[:, self._value : self._value + 6] = self._values[numbers % 97]
        return list(rows.view(f"S{rows.shape[1]}").ravel().tolist())


def produce(brokers: str, series: int, orders: Connection) -> None:
    """Write records by order.

    Args:
        brokers: Address of the broker.
        series: Number of series, which come in turn.
        orders: Receives the orders, each (records, rate a second; 0: as fast as possible), and answers when
            all of its records are written. None ends the process.
    """
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5, "compression.type": "lz4"})
    maker = RecordMaker(series)
    while (order := orders.recv()) is not None:
        records, rate = order
        began, sent = time.time(), 0
        while sent < records:
            now = time.time()
            due = records if not rate else min(records, int((now - began) * rate))
            burst = np.arange(sent, min(due, sent + BURST))
            for partition in range(PARTITIONS):
                ours = maker.records(burst[burst % PARTITIONS == partition], int(now * 1e9))
                producer.produce_batch(TOPIC, [{"value": one} for one in ours], partition=partition)
            sent += len(burst)
            producer.poll(0)
            if rate and sent >= due:
                time.sleep(PAUSE_SECONDS)
            while not rate and len(producer) > 50_000:
                producer.poll(0.05)
        producer.flush()
        orders.send(time.time() - began)


class Latencies:
    """Sink that is called after the COMMIT; event times are the producer's clock.

    It also stands before ``poll`` of the source: the broker stamps records when it appends them.
    """

    def __init__(self, source: Source) -> None:
        """Begin without records."""
        self.records = 0
        self._poll, self._read_ns = source.poll, 0
        source.poll = self.poll  # type: ignore[method-assign]
        self.clear()

    def clear(self) -> None:
        """Forget what was measured."""
        self.seconds: list[np.ndarray] = []
        self._ways: dict[str, list[np.ndarray]] = {"to the broker": [], "there": [], "in the loop": []}

    def poll(self, max_records: int, timeout: float) -> Poll:
        """Poll the source, and note the way of some records."""
        from pipeline.sources.base import Records

        found = self._poll(max_records, timeout)
        self._read_ns = time.time_ns()
        for records in found.records:
            assert isinstance(records, Records)
            rows = [row for row in records.values[::FOLLOWED] if row is not None]
            stamps = np.array([int(row[STAMP]) for row in rows], np.int64)
            appended = records.timestamps[::FOLLOWED]
            self._ways["to the broker"].append((appended - stamps) / 1e6)
            self._ways["there"].append((self._read_ns - appended) / 1e6)
        return found

    def append(self, result: Any) -> None:
        """Note the latencies of a batch."""
        if result.scored is not None:
            now, count = time.time_ns(), len(result.scored.points)
            self.seconds.append((now - result.scored.points.time) / 1e9)
            self._ways["in the loop"].append(np.full(1 + count // FOLLOWED, (now - self._read_ns) / 1e6))
            self.records += count

    def ways(self) -> dict[str, list[float]]:
        """Return the quantiles of each part of the way, ms."""
        return {
            name: [round(float(q), 1) for q in np.percentile(np.concatenate(found), QUANTILES)]
            for name, found in self._ways.items()
        }

    def close(self) -> None:
        """Nothing to release."""


class Turns:
    """Time of each turn of an engine, by phase, and the collections of garbage."""

    def __init__(self, engine: Engine) -> None:
        """Measure from now on."""
        self._engine = engine
        self.seconds: list[dict[str, float]] = []
        self._collections: list[tuple[float, str]] = []
        gc.callbacks.append(self._note)

    def _note(self, phase: str, info: dict[str, Any]) -> None:
        self._collections.append((time.perf_counter(), phase))

    def clear(self) -> None:
        """Forget what was measured."""
        self.seconds.clear()
        self._collections.clear()

    def take(self) -> None:
        """Let the engine take a turn."""
        before, began, cpu = self._phases(), time.perf_counter(), time.thread_time()
        self._engine.turn(0.1)
        turn, used = time.perf_counter() - began, time.thread_time() - cpu
        phases = {name: seconds - before.get(name, 0.0) for name, seconds in self._phases().items()}
        rest = turn - sum(phases.values())
        self.seconds.append({"turn": turn, "cpu": used} | phases | {"rest": rest})

    def slowest(self) -> list[dict[str, float]]:
        """Return the turns that took longest beside waiting for records, in ms."""
        order = sorted(self.seconds, key=lambda one: one["poll"] - one["turn"])
        return [{name: round(1e3 * seconds, 1) for name, seconds in one.items()} for one in order[:SLOWEST]]

    def longest_collection(self) -> float:
        """Return the seconds of the longest collection of garbage."""
        pairs = zip(self._collections, self._collections[1:], strict=False)
        return max((end - start for (start, one), (end, _) in pairs if one == "start"), default=0.0)

    def _phases(self) -> dict[str, float]:
        metrics = self._engine.parts.metrics
        names = ("poll", "score", "commit", "snapshot")
        return {
            name: metrics._metrics.flow.stage_seconds.labels(metrics._stream, name)._value.get()
            for name in names
        }


def cpu_seconds(others: dict[str, int]) -> dict[str, float]:
    """Return the CPU time of the threads of this process, and of others."""
    names = {one.native_id: one.name for one in threading.enumerate()}
    used: dict[str, float] = defaultdict(float)
    for thread in psutil.Process().threads():
        used[names.get(thread.id, "threads of libraries")] += thread.user_time + thread.system_time
    for name, pid in others.items():
        times = psutil.Process(pid).cpu_times()
        used[name] = times.user + times.system
    return used


def reached_rate(engine: Engine, sink: Latencies, records: int) -> float:
    """Return the records a second at which ``records`` that wait are committed."""
    while sink.records < BEGINNING * records:
        engine.turn(0.1)
    before, began = sink.records, time.perf_counter()
    while sink.records < records:
        engine.turn(0.1)
    return (sink.records - before) / (time.perf_counter() - began)


def measure(
    engine: Engine, sink: Latencies, orders: Connection, options: argparse.Namespace, others: dict[str, int]
) -> dict[str, Any]:
    """Return the reached rate, the paced rate, the latencies and the CPU.

    Args:
        engine: The engine, which owns its partitions.
        sink: Notes the latencies.
        orders: Orders to the producer.
        options: Options of the command line.
        others: Process ids of the producer and of the broker.
    """
    orders.send((options.waiting, 0))
    orders.recv()
    reached = reached_rate(engine, sink, options.waiting)
    rate = options.rate or int(reached / 2)
    records = int(rate * (SETTLING_SECONDS + options.seconds))
    before = sink.records
    orders.send((records, rate))
    turns, began = Turns(engine), time.monotonic()
    settled: tuple[float, int, dict[str, float]] | None = None
    while sink.records - before < records:
        turns.take()
        if settled is None and time.monotonic() - began > SETTLING_SECONDS:
            settled = time.monotonic(), sink.records, cpu_seconds(others)
            sink.clear()
            turns.clear()
    assert settled is not None
    lasted, counted = time.monotonic() - settled[0], sink.records - settled[1]
    used = {name: s - settled[2].get(name, 0.0) for name, s in cpu_seconds(others).items()}
    took = orders.recv()
    found = np.concatenate(sink.seconds)
    return {
        "reached": round(reached),
        "rate": round(records / took),
        "ms": {f"p{q}": float(np.percentile(found, q)) * 1e3 for q in (50, 90, 99, 99.9)}
        | {"max": float(found.max()) * 1e3},
        "ways_ms": sink.ways(),
        "batch": round(counted / len(turns.seconds)),
        "cpu_us_per_record": {
            name: round(1e6 * s / counted, 2) for name, s in used.items() if s >= 0.001 * lasted
        },
        "cores_used": round(sum(used.values()) / lasted, 2),
        "slowest_turns_ms": turns.slowest(),
        "longest_collection_ms": turns.longest_collection() * 1e3,
    }


def run(options: argparse.Namespace, folder: Path, broker: LocalBroker) -> dict[str, Any]:
    """Return the figures of an engine on ``broker`` with its files in ``folder``."""
    from detectors.composite.warmup import compile_kernels
    from pipeline.config.schema import Config
    from pipeline.core.interpreter import reduce_garbage_collection, take_turns_often
    from pipeline.database import open_database
    from pipeline.engine.factory import build_engine
    from pipeline.observability.metrics import Metrics, StreamMetrics
    from pipeline.sources import make_source
    from storage.history.writer import HistoryWriter

    stream = {
        "source": {"kafka": {"brokers": [broker.address], "topics": [TOPIC], "client": options.client}},
        "format": {"json": {"series": "sensor", "time": "ts", "time_unit": "ns", "values": "value"}},
        "detector": options.detector,
    }
    config = Config.model_validate(
        {"database": f"sqlite:///{folder}/latency.db", "streams": {"latency": stream}}
    )
    settings = config.streams["latency"]
    source = make_source("latency", settings.source, settings.format)
    sink = Latencies(source)
    ours, theirs = multiprocessing.Pipe()
    feeder = multiprocessing.Process(target=produce, args=(broker.address, options.series, theirs))
    feeder.start()
    with open_database(config) as database:
        engine = build_engine(
            "latency",
            config,
            database,
            source,
            StreamMetrics(Metrics(), "latency"),
            make_sinks=lambda scorer: [sink],
            history_writer=HistoryWriter(config.history_path, "latency"),
        )
        compile_kernels(engine.parts.scorer.detector)
        reduce_garbage_collection()
        take_turns_often()
        while len(engine.parts.ownership.positions) < PARTITIONS:
            engine.turn(0.1)
        try:
            assert feeder.pid is not None
            others = {"producer": feeder.pid, "broker": broker.status().pid}
            return measure(engine, sink, ours, options, others)
        finally:
            ours.send(None)
            feeder.join()
            engine.close()


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, help="records a second (default: half of the reached rate)")
    parser.add_argument("--seconds", type=float, default=35)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--waiting", type=int, default=600_000, help="records of the reached rate")
    parser.add_argument("--detector", default="light")
    parser.add_argument("--client", default="kafka-python")
    options = parser.parse_args()
    from kafka.admin import KafkaAdminClient, NewTopic

    from pipeline.local_kafka.broker import LocalBroker

    with tempfile.TemporaryDirectory() as folder:
        broker = LocalBroker(Path(folder) / "kafka")
        broker.up()
        try:
            admin = KafkaAdminClient(bootstrap_servers=broker.address)
            admin.create_topics(
                [NewTopic(TOPIC, PARTITIONS, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})]
            )
            admin.close()
            found = run(options, Path(folder), broker)
        finally:
            broker.down()
    print(
        f"{options.detector}, {options.series:,} series: {found['reached']:,} records/s are reached; at "
        f"{found['rate']:,}/s " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in found["ms"].items())
    )
    for name, micros in sorted(found["cpu_us_per_record"].items(), key=lambda one: -one[1]):
        print(f"{micros:6.2f} µs of CPU a record, {micros * found['rate'] / 1e6:.2f} cores: {name}")
    print(f"{found['cores_used']} of {os.cpu_count()} cores are used")
    for name, quantiles in found["ways_ms"].items():
        print(f"{name}:", ", ".join(f"p{q} {ms} ms" for q, ms in zip(QUANTILES, quantiles, strict=True)))
    print(f"{found['batch']:,} records a turn")
    for turn in found["slowest_turns_ms"]:
        print("slow turn, ms:", ", ".join(f"{name} {ms}" for name, ms in turn.items()))
    print(json.dumps({"benchmark": "latency", **vars(options), **found}))


if __name__ == "__main__":
    main()
