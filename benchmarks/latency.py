"""Time from a record to its committed verdict at half of the reached rate.

    python -m benchmarks.latency [--detector standard] [--seconds 35] [--rate 60000]

A real broker, an engine with recorded history as in a daemon, and a producer in a process of its own that
stamps each record with the wall clock. First the topic holds records that wait, and the rate at which they
are read is measured. Then records come at half of this rate. The latency of a record is the wall clock when
the COMMIT of its batch returned, minus its stamp. Snapshots fall into the measured time; its first seconds do
not count.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipeline.engine.engine import Engine

TOPIC, PARTITIONS = "latency", 4
#: Beginning of the paced records that does not count.
SETTLING_SECONDS = 3.0
#: Share of the waiting records after which the rate is measured: series begin in the first ones.
BEGINNING = 0.4


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
    while (order := orders.recv()) is not None:
        records, rate = order
        began, sent = time.time(), 0
        while sent < records:
            now = time.time()
            due = records if not rate else min(records, int((now - began) * rate))
            burst, stamp = min(due, sent + 5_000), int(now * 1e9)
            for number in range(sent, burst):
                record = b'{"sensor":"s%05d","ts":%d,"value":%.3f}' % (
                    number % series,
                    stamp,
                    20 + number % 97 / 100,
                )
                producer.produce(TOPIC, record, partition=number % PARTITIONS)
            sent = burst
            producer.poll(0)
            if rate and sent >= due:
                time.sleep(0.005)
            while not rate and len(producer) > 50_000:
                producer.poll(0.05)
        producer.flush()
        orders.send(time.time() - began)


class Latencies:
    """Sink that is called after the COMMIT; event times are the producer's clock."""

    def __init__(self) -> None:
        """Begin without records."""
        self.seconds: list[np.ndarray] = []
        self.records = 0

    def append(self, result: Any) -> None:
        """Note the latencies of a batch."""
        if result.scored is not None:
            self.seconds.append((time.time_ns() - result.scored.points.time) / 1e9)
            self.records += len(result.scored.points)

    def close(self) -> None:
        """Nothing to release."""


def reached_rate(engine: Engine, sink: Latencies, records: int) -> float:
    """Return the records a second at which ``records`` that wait are committed."""
    while sink.records < BEGINNING * records:
        engine.turn(0.1)
    before, began = sink.records, time.perf_counter()
    while sink.records < records:
        engine.turn(0.1)
    return (sink.records - before) / (time.perf_counter() - began)


def measure(
    engine: Engine, sink: Latencies, orders: Connection, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the reached rate, the rate of the paced records and their latencies.

    Args:
        engine: The engine, which owns its partitions.
        sink: Notes the latencies.
        orders: Orders to the producer.
        options: Options of the command line.
    """
    orders.send((options.waiting, 0))
    orders.recv()
    reached = reached_rate(engine, sink, options.waiting)
    rate = options.rate or int(reached / 2)
    records = int(rate * (SETTLING_SECONDS + options.seconds))
    before = sink.records
    orders.send((records, rate))
    began, settled, turns, pauses = time.monotonic(), False, [], []
    gc.callbacks.append(lambda phase, info: pauses.append((time.perf_counter(), info["generation"])))
    while sink.records - before < records:
        turn_began = time.perf_counter()
        engine.turn(0.1)
        turns.append(time.perf_counter() - turn_began)
        if not settled and time.monotonic() - began > SETTLING_SECONDS:
            settled = True
            sink.seconds.clear()
            turns.clear()
            pauses.clear()
    took = orders.recv()
    found = np.concatenate(sink.seconds)
    collected = [
        (end - start, generation)
        for (start, generation), (end, _) in zip(pauses[::2], pauses[1::2], strict=False)
    ]
    return {
        "reached": round(reached),
        "rate": round(records / took),
        "ms": {f"p{q}": float(np.percentile(found, q)) * 1e3 for q in (50, 90, 99, 99.9)}
        | {"max": float(found.max()) * 1e3},
        "longest_turn_ms": max(turns) * 1e3,
        "longest_collection_ms": max((seconds for seconds, _ in collected), default=0.0) * 1e3,
    }


def run(options: argparse.Namespace, folder: Path, broker: str) -> dict[str, Any]:
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
        "source": {"kafka": {"brokers": [broker], "topics": [TOPIC], "client": options.client}},
        "format": {"json": {"series": "sensor", "time": "ts", "time_unit": "ns", "values": "value"}},
        "detector": options.detector,
    }
    config = Config.model_validate(
        {"database": f"sqlite:///{folder}/latency.db", "streams": {"latency": stream}}
    )
    sink, settings = Latencies(), config.streams["latency"]
    ours, theirs = multiprocessing.Pipe()
    feeder = multiprocessing.Process(target=produce, args=(broker, options.series, theirs))
    feeder.start()
    with open_database(config) as database:
        engine = build_engine(
            "latency",
            config,
            database,
            make_source("latency", settings.source, settings.format),
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
            return measure(engine, sink, ours, options)
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
            admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
            admin.close()
            found = run(options, Path(folder), broker.address)
        finally:
            broker.down()
    print(
        f"{options.detector}, {options.series:,} series: {found['reached']:,} records/s are reached; at "
        f"{found['rate']:,}/s " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in found["ms"].items())
    )
    print(json.dumps({"benchmark": "latency", **vars(options), **found}))


if __name__ == "__main__":
    main()
