"""Kafka record to committed verdict, beside a bare poll loop over the same topic in the same run.

    python -m benchmarks.throughput [--records 1000000] [--series 10000] [--rounds 3] [--codec lz4] [--rows
    "forewatch light" ...]

A real local broker, JSON records of about 60 bytes in 4 partitions, one process a row, rows in turn (the
machine's speed drifts; a ratio of two neighbours does not). Ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from storage.sql.database import Database

PARTITIONS = 4
TOPIC = "bench"
VERDICTS = "verdicts"


def produce(brokers: str, records: int, series: int, codec: str) -> float:
    """Fill the topic; every series advances by one minute a round, so that each record is a new point of its
    series.
    """
    from confluent_kafka import Producer
    from kafka.admin import KafkaAdminClient, NewTopic

    admin = KafkaAdminClient(bootstrap_servers=brokers)
    admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in (TOPIC, VERDICTS)])
    admin.close()
    producer = Producer(
        {
            "bootstrap.servers": brokers,
            "compression.type": codec,
            "linger.ms": 50,
            "queue.buffering.max.messages": 200_000,
        }
    )
    rng = np.random.default_rng(0)
    start = 1_700_000_000
    size = 0
    for first in range(0, records, series):
        count = min(series, records - first)
        values = np.round(20 + 5 * np.sin((first // series) / 30) + rng.normal(0, 0.3, count), 3).tolist()
        for i, value in enumerate(values):
            record = b'{"sensor":"sensor-%06d","ts":%d,"temperature":%.3f}' % (
                i,
                start + 60 * (first // series),
                value,
            )
            size += len(record)
            producer.produce(TOPIC, record, partition=i % PARTITIONS)
        producer.poll(0)
        while len(producer) > 150_000:
            producer.poll(0.05)
    producer.flush()
    return size / records


class Clock:
    """Records per second, and CPU microseconds a record: a busy machine stretches only the former."""

    def __init__(self) -> None:
        self.began, self.busy = time.perf_counter(), time.process_time()

    def rates(self, records: int) -> tuple[float, float]:
        return records / (time.perf_counter() - self.began), (time.process_time() - self.busy) / records * 1e6


def bare(brokers: str, records: int, client: str, backoff_ms: int = 10) -> tuple[float, float]:
    """The client's own poll loop; ``backoff_ms``: how long confluent fetches nothing after its queue was
    full.
    """
    if client == "confluent":
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(
            {
                "bootstrap.servers": brokers,
                "group.id": "bare",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "fetch.queue.backoff.ms": backoff_ms,
            }
        )
        consumer.assign([TopicPartition(TOPIC, p, 0) for p in range(PARTITIONS)])
        got, clock = 0, Clock()
        while got < records:
            got += len([m.value() for m in consumer.consume(20_000, 0.2)])
        return clock.rates(records)
    from kafka import KafkaConsumer
    from kafka.structs import TopicPartition as Tp

    consumer = KafkaConsumer(bootstrap_servers=brokers, group_id=None)
    consumer.assign([Tp(TOPIC, p) for p in range(PARTITIONS)])
    consumer.seek_to_beginning()
    got, clock = 0, Clock()
    while got < records:
        got += sum(map(len, consumer.poll(timeout_ms=200, max_records=20_000).values()))
    return clock.rates(records)


def engine(
    brokers: str, records: int, client: str, detector: str, folder: Path, *rest: str
) -> tuple[float, float]:
    """From the first record read to the last one committed, with one fsync a batch.

    ``rest``: ``nohistory``; ``flagged`` or ``all``: an output of these verdicts to a topic, ``by-confluent``;
    or ``of-two`` and the URL of a database: one of two processes of a group, measured from the moment at
    which it owns half.
    """
    from detectors.composite.warmup import compile_kernels
    from pipeline.config.schema import Config
    from pipeline.core.interpreter import reduce_garbage_collection
    from pipeline.database import open_database
    from pipeline.engine.factory import build_engine
    from pipeline.observability.metrics import Metrics, StreamMetrics
    from pipeline.outputs.factory import make_outputs
    from pipeline.sources import make_source
    from storage.history.writer import HistoryWriter

    name = f"{client}-{detector}-{os.getpid()}"
    half = "of-two" in rest
    rows = next((word for word in rest if word in ("flagged", "all")), None)
    output = {"brokers": [brokers], "topic": VERDICTS}
    output |= {"client": "confluent"} if "by-confluent" in rest else {}
    config = Config.model_validate(
        {
            "database": rest[-1] if half else f"sqlite:///{folder}/{name}.db",
            "streams": {
                "bench": {
                    "source": {
                        "kafka": {
                            "brokers": [brokers],
                            "topics": [TOPIC],
                            "group": "pair" if half else name,
                            "client": client,
                        }
                    },
                    "format": {"json": {"series": "sensor", "time": "ts", "values": ["temperature"]}},
                    "detector": detector,
                    "every": "1m",
                    "outputs": {} if rows is None else {name: {"kafka": output | {"rows": rows}}},
                }
            },
        }
    )
    with open_database(config) as database:
        source = make_source("bench", config.streams["bench"].source)
        writer = None if "nohistory" in rest else HistoryWriter(f"{folder}/{name}.history", "bench")
        metrics = Metrics()
        loop = build_engine(
            "bench",
            config,
            database,
            source,
            StreamMetrics(metrics, "bench"),
            make_outputs=lambda scorer: make_outputs(config.streams["bench"], scorer, metrics),
            history_writer=writer,
        )
        # this and the next line: what the daemon does before its first turn
        compile_kernels(loop.parts.scorer.detector)
        reduce_garbage_collection()
        positions = loop.parts.ownership.positions

        def read() -> int:
            return committed(database) if half else sum(p.counts.read() for p in positions.values())

        while len(positions) != (PARTITIONS // 2 if half else PARTITIONS):
            loop.turn(0.2)
        before, clock = read(), Clock()
        while read() < records:
            loop.turn(0.2)
        for partition in positions if loop.parts.writers.outputs else ():
            while not loop.parts.writers.outputs[0].durable(partition):
                pass  # the last verdicts are on their way
        found = clock.rates(records - before)
        loop.close()
    return found


def committed(database: Database) -> int:
    """Records committed by the whole group."""
    from sqlalchemy import func, select

    from storage.tables.stream import PositionRow

    with database.read() as connection:
        return int(connection.scalar(select(func.sum(PositionRow.next_offset))) or 0)


def river(brokers: str, records: int) -> tuple[float, float]:
    """Run the poll loop with one HalfSpaceTrees of river for the whole stream.

    One model per series is slower.
    """
    from kafka import KafkaConsumer
    from kafka.structs import TopicPartition
    from river.anomaly import HalfSpaceTrees

    consumer = KafkaConsumer(bootstrap_servers=brokers, group_id=None)
    consumer.assign([TopicPartition(TOPIC, p) for p in range(PARTITIONS)])
    consumer.seek_to_beginning()
    model = HalfSpaceTrees(seed=1)
    got, clock = 0, Clock()
    while got < records:
        for batch in consumer.poll(timeout_ms=200, max_records=20_000).values():
            got += len(batch)
            for record in batch:
                value = {"v": json.loads(record.value)["temperature"] / 40}
                model.score_one(value)
                model.learn_one(value)
    return clock.rates(got)


def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """One row in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--measure", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> tuple[float, float]:
    out, error = process.communicate()
    if process.returncode:
        raise SystemExit(error)
    rate, cpu = json.loads(out.strip().splitlines()[-1])
    return rate, cpu


ROWS = {
    "bare kafka-python": ("bare", "kafka-python"),
    "forewatch light": ("engine", "kafka-python", "light"),
    "forewatch light, history off": ("engine", "kafka-python", "light", "nohistory"),
    "forewatch light, flagged verdicts to a topic": ("engine", "kafka-python", "light", "flagged"),
    "forewatch light, all verdicts to a topic": ("engine", "kafka-python", "light", "all"),
    "forewatch light, all verdicts to a topic by confluent": (
        *("engine", "kafka-python", "light", "all", "by-confluent"),
    ),
    "forewatch standard": ("engine", "kafka-python", "standard"),
    "forewatch light, two processes, PostgreSQL": ("pair", "kafka-python", "light", "of-two"),
    "bare confluent, as it comes": ("bare", "confluent", "1000"),
    "bare confluent": ("bare", "confluent"),
    "forewatch light, confluent": ("engine", "confluent", "light"),
    "river HalfSpaceTrees, kafka-python": ("river", "kafka-python"),
}


def measure(brokers: str, records: int, folder: str, row: tuple[str, ...]) -> tuple[float, float]:
    kind, *rest = row
    if kind != "pair":
        return result(start([kind, brokers, str(records), folder, *rest]))
    from storage.sql.database import Database
    from tests.support.postgres_server import LocalPostgres, create_database

    server = LocalPostgres(durable=True)
    server.start()
    try:
        url = create_database(server)
        Database(url).upgrade()
        pair = [start(["engine", brokers, str(records), folder, *rest, url]) for _ in range(2)]
        return min(map(result, pair))  # the one that began to count later saw both at work all the time
    finally:
        server.remove()


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--codec", default="lz4")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, brokers, records, folder, client, *rest = options.measure
        if kind == "bare":
            print(json.dumps(bare(brokers, int(records), client, *map(int, rest))))
        elif kind == "river":
            print(json.dumps(river(brokers, min(int(records), 50_000))))
        else:
            print(json.dumps(engine(brokers, int(records), client, rest[0], Path(folder), *rest[1:])))
        return
    from pipeline.local_kafka.broker import LocalBroker

    with tempfile.TemporaryDirectory() as folder:
        broker = LocalBroker(Path(folder) / "kafka")
        broker.up()
        try:
            size = produce(broker.address, options.records, options.series, options.codec)
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in options.rows}
            for _ in range(options.rounds):
                for name in options.rows:
                    found[name].append(measure(broker.address, options.records, folder, ROWS[name]))
                    print(
                        f"  {name}: {found[name][-1][0]:,.0f}/s, {found[name][-1][1]:.2f} µs",
                        file=sys.stderr,
                        flush=True,
                    )
        finally:
            broker.down()
    report(found, options, size)


def report(found: dict[str, list[tuple[float, float]]], options: argparse.Namespace, size: float) -> None:
    print(
        f"{options.records:,} records of {size:.0f} bytes, {options.series:,} series, "
        f"{PARTITIONS} partitions, {options.codec}\n"
    )
    print(
        "| what | records/s (median) | of the bare loop (median of the rounds' ratios) | "
        "CPU µs a record (median) | of the bare loop |"
    )
    print("|---|---|---|---|---|")
    rows = []
    for name, rounds in found.items():
        base = found["bare confluent" if "confluent" in name else "bare kafka-python"]
        rate, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(mine[0] / bare[0] for mine, bare in zip(rounds, base, strict=True))
        cost = statistics.median(bare[1] / mine[1] for mine, bare in zip(rounds, base, strict=True))
        rows.append({"what": name, "rounds": rounds, "ratio": ratio, "cpu_ratio": cost})
        print(f"| {name} | {rate:,.0f} | {ratio:.2f} | {cpu:.2f} | {cost:.2f} |")
    print(json.dumps({"benchmark": "throughput", "rows": rows}))


if __name__ == "__main__":
    main()
