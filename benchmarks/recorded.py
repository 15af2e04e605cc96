"""Recorded series through a real broker and the real daemon path: which labelled windows were hit, and what
was falsely flagged.

    python -m benchmarks.recorded [--detector standard]

Produces NAB's machine temperature, an AWS network series and three stocks into Apache Kafka, runs the engine
until it has committed all of it, and prints every anomaly with its band as it stands in the database. Reads
../shared/data; labels are used for this table only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.config.schema import Config
from pipeline.core.types import Anomaly
from pipeline.database import open_database
from pipeline.engine.factory import build_engine
from pipeline.local_kafka.broker import LocalBroker
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.services.explain import describe_anomaly
from pipeline.sources import make_source
from storage.results import anomalies

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NAB = {
    "plant": "realKnownCause/machine_temperature_system_failure.csv",
    "edge": "realAWSCloudwatch/ec2_network_in_257a54.csv",
}
STOCKS = ("AAPL", "GE", "XOM")


def recorded() -> dict[str, list[dict[str, Any]]]:
    """Topic → records, in time order."""
    topics: dict[str, list[dict[str, Any]]] = {}
    for stream, name in NAB.items():
        frame = pd.read_csv(DATA / "nab" / "data" / name)
        rows = zip(frame["timestamp"], frame["value"], strict=True)
        topics[stream] = [
            {"series": Path(name).stem, "time": t.replace(" ", "T") + "Z", "value": v} for t, v in rows
        ]
    daily = pd.concat([pd.read_csv(DATA / "stocks" / f"{symbol}.csv") for symbol in STOCKS]).sort_values(
        ["Date", "Name"]
    )
    rows = zip(daily["Date"], daily["Name"], daily["Close"], daily["Volume"], strict=True)
    topics["market"] = [
        {"series": n, "time": f"{d}T00:00:00Z", "close": c, "volume": v} for d, n, c, v in rows
    ]
    return topics


def config(folder: Path, brokers: str, detector: str) -> Config:
    """Three streams as a user would write them."""

    def stream(name: str, preset: str, values: list[str], **more: Any) -> dict[str, Any]:
        return {
            "source": {"kafka": {"brokers": [brokers], "topics": [name]}},
            "format": {"json": {"series": "series", "time": "time", "values": values}},
            "preset": preset,
            "detector": detector,
        } | more

    streams = {
        "plant": stream("plant", "sensor", ["value"], every="5m"),
        "edge": stream("edge", "network", ["value"], every="5m"),
        "market": stream("market", "stock", ["close", "volume"], every="1d", calendar="XNYS"),
    }
    return Config.model_validate({"database": f"sqlite:///{folder}/recorded.db", "streams": streams})


def produce(brokers: str, topics: dict[str, list[dict[str, Any]]]) -> None:
    from kafka import KafkaProducer
    from kafka.admin import KafkaAdminClient, NewTopic

    admin = KafkaAdminClient(bootstrap_servers=brokers)
    admin.create_topics([NewTopic(topic, 1, 1) for topic in topics])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=brokers, linger_ms=20, compression_type="lz4")
    for topic, records in topics.items():
        for record in records:
            producer.send(topic, json.dumps(record).encode(), record["series"].encode())
    producer.flush()
    producer.close()


def watch(settings: Config, wanted: dict[str, int]) -> list[Anomaly]:
    """Turn each stream's engine until everything that was produced is committed; what is then in the
    database.
    """
    with open_database(settings) as database:
        for name, stream in settings.streams.items():
            source = make_source(name, stream.source, stream.format)
            engine = build_engine(name, settings, database, source, StreamMetrics(Metrics(), name))
            while sum(p.counts.read() for p in engine.parts.ownership.positions.values()) < wanted[name]:
                engine.turn(0.2)
            engine.close()
        with database.read() as connection:
            return anomalies.query(connection)


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", default="standard")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"the open data sets are not there: {DATA}")
    topics = recorded()
    with tempfile.TemporaryDirectory() as folder:
        broker = LocalBroker(Path(folder) / "kafka")
        try:
            settings = config(Path(folder), broker.up(), options.detector)
            produce(broker.address, topics)
            found = watch(settings, {name: len(records) for name, records in topics.items()})
        finally:
            broker.down()
    report(found, {name: len(records) for name, records in topics.items()})


def report(found: list[Anomaly], records: dict[str, int]) -> None:
    windows = json.loads((DATA / "nab" / "combined_windows.json").read_text())
    summary = {}
    for stream, name in NAB.items():
        own = sorted((a for a in found if a.stream == stream), key=lambda a: a.start_ns)
        spans = [tuple(pd.Timestamp(edge).value for edge in window) for window in windows[name]]
        hit = [any(a.start_ns <= end and a.end_ns >= start for a in own) for start, end in spans]
        false = [a for a in own if not any(a.start_ns <= end and a.end_ns >= start for start, end in spans)]
        summary[stream] = {
            "records": records[stream],
            "windows": len(spans),
            "hit": sum(hit),
            "anomalies": len(own),
            "false": len(false),
        }
        print(f"\n## {stream}: {name}\n")
        for (start, end), was in zip(spans, hit, strict=True):
            print(f"- window {pd.Timestamp(start)} … {pd.Timestamp(end)}: {'hit' if was else 'MISSED'}")
        for anomaly in own:
            print(f"- {'outside the windows: ' if anomaly in false else ''}{describe_anomaly(anomaly)}")
    market = sorted((a for a in found if a.stream == "market"), key=lambda a: a.start_ns)
    summary["market"] = {"records": records["market"], "anomalies": len(market)}
    print("\n## market (daily, no labels)\n")
    for anomaly in market:
        print(f"- {describe_anomaly(anomaly)}")
    print()
    print(json.dumps({"benchmark": "recorded"} | summary))


if __name__ == "__main__":
    main()
