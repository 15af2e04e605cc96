"""Produce-to-commit latency with and without late points, in one run.

    python -m benchmarks.late_points [--rate 2000] [--late 0.01] [--seconds 12] [--limit 220]

A producer in a process of its own paces records and stamps each with the wall clock; the engine notes the
wall clock when a batch's COMMIT returned. In every second phase a share of the records is older than the
last one of its series, by up to a minute. These revise their series in the background, as in a daemon. The
phases without late points begin when every revision of the phase before is done. The late records
themselves have no latency.

A revision scores at most 25 series, and takes some four seconds because its thread rests three quarters of
the time. So the late records of 200 series keep it busy for half a minute after a phase. ``--limit`` ends the run
after so many seconds with the phases that it has. The goal is a p99 of at most 1.2 times that without.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from pipeline.engine.engine import Engine
    from storage.sql.database import Database

TOPIC, PARTITIONS = "late", 2
#: Beginning of a phase that does not count.
SETTLING_SECONDS = 2.0
MAX_RATIO = 1.2
OLDEST_SECONDS = 60.0


def produce(brokers: str, rate: int, series: int, late: Any, stopping: Event) -> None:
    """Write records in bursts of 5 ms, until ``stopping`` is set.

    Args:
        brokers: Address of the broker.
        rate: Records a second.
        series: Number of series.
        late: Shared share of late records.
        stopping: Ends the process.
    """
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 2, "compression.type": "lz4"})
    rng = np.random.default_rng(1)
    began, sent = time.time(), 0
    while not stopping.is_set():
        while sent < (time.time() - began) * rate:
            number, now = sent % series, time.time()
            if rng.random() < late.value:
                now -= rng.uniform(1.5 * series / rate, OLDEST_SECONDS)
            value = 20 + 3 * np.sin(now / 30 + number) + rng.normal()
            record = b'{"sensor":"s%05d","ts":%d,"value":%.3f}' % (number, int(now * 1e9), value)
            producer.produce(TOPIC, record, partition=number % PARTITIONS)
            sent += 1
        producer.poll(0)
        time.sleep(0.005)
    producer.flush()


class Latencies:
    """Sink that is called after the COMMIT; event times are the producer's clock."""

    def __init__(self) -> None:
        """Begin without records."""
        self.seconds: list[np.ndarray] = []
        self.late = 0

    def append(self, result: Any) -> None:
        """Note the latencies of a batch."""
        if result.scored is not None:
            self.seconds.append((time.time_ns() - result.scored.points.time) / 1e9)
        self.late += sum(len(one.late) for one in result.outcomes.values())

    def close(self) -> None:
        """Nothing to release."""


def run_phases(options: argparse.Namespace, folder: Path, broker: str) -> dict[str, list[float]]:
    """Return the p99 of each phase, ms, by kind of phase."""
    from pipeline.config.schema import Config
    from pipeline.daemon.revision_service import RevisionService
    from pipeline.database import open_database

    stream = {
        "source": {"kafka": {"brokers": [broker], "topics": [TOPIC]}},
        "format": {"json": {"series": "sensor", "time": "ts", "time_unit": "ns", "values": "value"}},
        "detector": options.detector,
    }
    database_url = f"sqlite:///{folder}/late.db"
    config = Config.model_validate({"database": database_url, "streams": {"late": stream}})
    sink, service = Latencies(), RevisionService()
    with open_database(config) as database:
        engine = make_engine(config, database, sink)
        late, stopping = multiprocessing.Value("d", 0.0), multiprocessing.Event()
        feeder = multiprocessing.Process(
            target=produce, args=(broker, options.rate, options.series, late, stopping)
        )
        while not engine.parts.ownership.positions:
            engine.turn(0.1)
        feeder.start()
        service.start()
        try:
            found = measure(engine, service, sink, late, options)
        finally:
            stopping.set()
            feeder.join()
            service.stop()
            engine.close()
    return found


def make_engine(config: Config, database: Database, sink: Latencies) -> Engine:
    """Return the engine of a daemon, with compiled kernels."""
    from detectors.composite.warmup import compile_kernels
    from pipeline.core.interpreter import reduce_garbage_collection, take_turns_often
    from pipeline.daemon.revision_service import revisions_of
    from pipeline.engine.factory import build_engine
    from pipeline.observability.metrics import Metrics, StreamMetrics
    from pipeline.sources import make_source
    from storage.history.writer import HistoryWriter

    metrics = Metrics()
    writer, settings = HistoryWriter(config.history_path, "late"), config.streams["late"]
    engine = build_engine(
        "late",
        config,
        database,
        make_source("late", settings.source, settings.format),
        StreamMetrics(metrics, "late"),
        make_sinks=lambda scorer: [sink, *revisions_of(config, "late", database, scorer, writer, metrics)],
        history_writer=writer,
    )
    compile_kernels(engine.parts.scorer.detector)
    reduce_garbage_collection()
    take_turns_often()
    return engine


def measure(
    engine: Engine, service: Any, sink: Latencies, late: Any, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the p99 of each phase, ms, by kind of phase.

    Args:
        engine: The engine, whose records come in.
        service: The service of revisions.
        sink: Notes the latencies.
        late: Shared share of late records.
        options: Options of the command line.
    """
    found: dict[str, list[float]] = {"without": [], "with": []}
    turn_for(engine, service, 2 * SETTLING_SECONDS)
    until = time.monotonic() + options.limit
    for phase in ["warm up", *["without", "with"] * options.rounds, "without"]:
        if until - time.monotonic() < SETTLING_SECONDS + options.seconds:
            print(f"--limit {options.limit:.0f}: the phases from here on are left out")
            break
        late.value = 0.0 if phase == "without" else options.late
        turn_for(engine, service, SETTLING_SECONDS)
        sink.seconds.clear()
        before = sink.late
        turn_for(engine, service, options.seconds)
        seconds = np.concatenate(sink.seconds)
        p50, p99 = (float(np.percentile(seconds, q)) * 1e3 for q in (50, 99))
        print(
            f"{phase}: {len(seconds):,} records, {sink.late - before:,} late, p50 {p50:.0f}, p99 {p99:.0f} ms"
        )
        if phase in found:
            found[phase].append(p99)
        if phase != "without":
            late.value = 0.0
            took = turn_until_revised(engine, service, max(until - time.monotonic(), 0.0))
            print(f"the last of its late points had revised after {took:.0f} s")
    return found


def turn_for(engine: Engine, service: Any, seconds: float) -> None:
    """Run the loop of a daemon for some time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        engine.turn(0.1)
        service.apply(engine)
        service.follow({"late": engine})


def turn_until_revised(engine: Engine, service: Any, most_seconds: float) -> float:
    """Run the loop until no late point is pending, and return the time that it took.

    A snapshot marks them; one is taken each second instead of each half minute.
    """
    from storage.results import late_records

    began = time.monotonic()
    database = engine.parts.committer._database
    while time.monotonic() - began < most_seconds:
        turn_for(engine, service, 1.0)
        engine.parts.snapshots.take_all(engine.parts.ownership)
        with database.read() as connection:
            if not late_records.pending(connection, "late", list(engine.parts.ownership.positions), 1):
                break
    return time.monotonic() - began


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--late", type=float, default=0.01)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--detector", default="light")
    parser.add_argument("--limit", type=float, default=220, help="longest time of the phases, seconds")
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
            found = run_phases(options, Path(folder), broker.address)
        finally:
            broker.down()
    if not all(found.values()):
        raise SystemExit("no phase of each kind within --limit: fewer --series, or a longer limit")
    ratio = float(np.median(found["with"]) / np.median(found["without"]))
    verdict = "met" if ratio <= MAX_RATIO else "missed"
    print(f"p99 with late points is {ratio:.2f} times that without; goal {MAX_RATIO:g}: {verdict}")
    print(json.dumps({"benchmark": "late_points", "p99_ms": found, "ratio": ratio, **vars(options)}))


if __name__ == "__main__":
    main()
