"""The config of the demo, written to a file so that every command can use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.demo.feed import history_file
from pipeline.demo.simulate import WORLDS, Batches, Market, Network, Plant
from pipeline.local_kafka.broker import free_port

TELEMETRY = ("cpu", "memory", "disk_read", "disk_written", "net_received", "net_sent")

#: Stream → units of its channels.
UNITS = {
    "plant": {"temperature": "°C", "pressure": "bar"},
    "edge": {"bytes": "B"},
    "market": {"close": "USD"},
    "host": dict.fromkeys(("cpu", "memory"), "%"),
}

#: Folder of the historical records, in that of the demo.
HISTORY_FOLDER = "history"


_HOST = {
    "source": {"telemetry": {"every": "1s"}},
    "format": {"csv": {"series": "host", "time": "time", "values": list(TELEMETRY)}},
    "preset": "sensor",
    "every": "1s",
}


def demo_streams(brokers: str | None) -> dict[str, Any]:
    """Return the streams of the config without their alerts and retraining."""
    simulated = _simulated_streams(brokers)
    # The simulated clock is fast: after three quarters of an hour it is ahead of the real one.
    return {name: one | {"future": None} for name, one in simulated.items()} | {"host": _HOST}


def _simulated_streams(brokers: str | None) -> dict[str, Any]:

    def source(topic: str) -> dict[str, Any]:
        return (
            {"kafka": {"brokers": [brokers], "topics": [topic]}} if brokers else {"memory": {"name": topic}}
        )

    return {
        "plant": {
            "source": source(Plant.topic),
            "format": {
                "json": {"series": ["site", "sensor"], "time": "ts", "values": ["temperature", "pressure"]}
            },
            "preset": "sensor",
            "every": "5m",
        },
        "batches": {
            "source": source(Batches.topic),
            "format": {"json": {"series": "mixer", "time": "ts", "code": "step"}},
            "events": {"end": ["dry"], "idle": "1h"},
        },
        "edge": {
            "source": source(Network.topic),
            "format": {
                "json": {
                    "series": "host",
                    "time": "time_ms",
                    "values": {"bytes": "octets", "packets": "pkts"},
                }
            },
            "preset": "network",
            "aggregate": {
                "every": "5m",
                "values": {"bytes": "sum", "packets": "sum", "flows": "count", "peers": {"nunique": "dst"}},
            },
        },
        "market": {
            "source": source(Market.topic),
            "format": {"json": {"series": "symbol", "time": "ts", "values": ["close", "volume"]}},
            "preset": "stock",
            "every": "5m",
        },
    }


def write_config(folder: Path, brokers: str | None, hook: str, secret: Path) -> Path:
    """Write ``demo.yaml``.

    Args:
        folder: Folder of the file and of the database.
        brokers: Address of the broker; None makes the streams read the in-process log.
        hook: Address of the webhook that receives the alerts.
        secret: File with the secret of the signatures.
    """
    streams = demo_streams(brokers)
    for world in WORLDS:
        # Verdicts on the history are discarded, so the demo is quiet until its first fault.
        streams[world.stream]["warm_start"] = str(folder / HISTORY_FOLDER / history_file(world.topic))
    for stream in streams.values():
        # The simulated clock starts a month ago.
        stream["alerts"] = {"severity": {"notice": "warning"}, "max_age": None, "units": {}}
        stream["retraining"] = {"schedule": None, "on_drift": False}
    for name, units in UNITS.items():
        streams[name]["alerts"]["units"] = units
    streams["plant"]["retraining"] = {
        "schedule": None,  # the first training is on the history, at the start
        "shadow": "0s",
        "post_promotion_check": "1m",
        "epochs": 12,
        "on_drift": False,
    }
    endpoints = {
        "terminal": {"type": "webhook", "url": hook, "secret": {"file": str(secret)}, "allow": ["loopback"]}
    }
    config = {
        "database": f"sqlite:///{folder}/demo.db",
        "http": {"port": free_port()},  # fixed, so that the dashboard can read the metrics
        "streams": streams,
        "endpoints": endpoints,
    }
    path = folder / "demo.yaml"
    with path.open("w") as file:
        YAML().dump(config, file)
    return path
