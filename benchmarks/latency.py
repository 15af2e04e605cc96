"""Produce-to-commit latency at half load, on a real broker: how long a record takes until its verdict is in
the database.

    python -m benchmarks.latency [--rate 60000] [--seconds 20] [--detector light]

A producer in a process of its own paces records and stamps each with the wall clock; the engine notes the
wall clock when a batch's COMMIT returned. The latency of a record is the difference; start-up (the first two
seconds) does not count.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np

TOPIC, PARTITIONS = "latency", 4


def produce(brokers: str, rate: int, seconds: float, series: int) -> None:
    """Write records in bursts of 10 ms.

    Args:
        brokers: Address of the broker.
        rate: Records a second.
        seconds: Time until it ends.
        series: Number of series.
    """
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5, "compression.type": "lz4"})
    began = time.time()
    sent = 0
    while (elapsed := time.time() - began) < seconds:
        while sent < elapsed * rate:
            now = time.time()
            number = sent % series
            record = b'{"sensor":"s%05d","ts":%d,"value":%.3f}' % (
                number,
                int(now * 1e9),
                20 + np.sin(sent / 997),
            )
            producer.produce(TOPIC, record, partition=number % PARTITIONS)
            sent += 1
        producer.poll(0)
        time.sleep(0.01)
    producer.flush()


class Latencies:
    """A sink: it is called right after the COMMIT, and event times are the producer's wall clock."""

    def __init__(self) -> None:
        self.seconds: list[np.ndarray] = []

    def append(self, result: object) -> None:
        scored = result.scored  # type: ignore[attr-defined]
        if scored is not None:
            self.seconds.append((time.time_ns() - scored.points.time) / 1e9)

    def close(self) -> None:
        """Nothing to release."""


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=60_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--detector", default="light")
    options = parser.parse_args()
    from kafka.admin import KafkaAdminClient, NewTopic

    from detectors.composite.warmup import compile_kernels
    from pipeline.config.schema import Config
    from pipeline.database import open_database
    from pipeline.engine.factory import build_engine
    from pipeline.local_kafka.broker import LocalBroker
    from pipeline.observability.metrics import Metrics, StreamMetrics
    from pipeline.sources import make_source

    with tempfile.TemporaryDirectory() as folder:
        broker = LocalBroker(Path(folder) / "kafka")
        broker.up()
        try:
            admin = KafkaAdminClient(bootstrap_servers=broker.address)
            admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
            admin.close()
            stream = {
                "source": {"kafka": {"brokers": [broker.address], "topics": [TOPIC]}},
                "format": {"json": {"series": "sensor", "time": "ts", "time_unit": "ns", "values": "value"}},
                "detector": options.detector,
            }
            config = Config.model_validate(
                {"database": f"sqlite:///{folder}/latency.db", "streams": {"latency": stream}}
            )
            sink = Latencies()
            with open_database(config) as database:
                settings = config.streams["latency"]
                source = make_source("latency", settings.source, settings.format)
                engine = build_engine(
                    "latency",
                    config,
                    database,
                    source,
                    StreamMetrics(Metrics(), "latency"),
                    make_sinks=lambda scorer, sink=sink: [sink],
                )
                compile_kernels(engine.parts.scorer.detector)
                while not engine.parts.ownership.positions:
                    engine.turn(0.1)
                feeder = multiprocessing.Process(
                    target=produce, args=(broker.address, options.rate, options.seconds, options.series)
                )
                feeder.start()
                began = time.monotonic()
                while feeder.is_alive() or time.monotonic() - began < options.seconds + 1:
                    engine.turn(0.1)
                    if time.monotonic() - began < 2:
                        sink.seconds.clear()
                feeder.join()
                engine.close()
        finally:
            broker.down()
    found = np.concatenate(sink.seconds)
    figures = {f"p{q}": float(np.percentile(found, q)) * 1e3 for q in (50, 90, 99, 99.9)} | {
        "max": float(found.max()) * 1e3
    }
    print(
        f"{len(found):,} records at {options.rate:,}/s, {options.series:,} series, "
        f"detector {options.detector}: " + ", ".join(f"{k} {v:.0f} ms" for k, v in figures.items())
    )
    print(
        json.dumps(
            {"benchmark": "latency", "rate": options.rate, "detector": options.detector, "ms": figures}
        )
    )


if __name__ == "__main__":
    main()
