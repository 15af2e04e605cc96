"""The exporter of OpenTelemetry's own SDK sends metrics to a daemon."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from storage.results import dead_letters
from tests.support.file_daemons import running
from tests.support.postgres_server import free_port


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_the_exporter_of_opentelemetry_is_understood(
    compression: Compression, tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("PUSH_KEY", "a long random text")
    form = {"series": ["__name__", "resource.service.name", "route"], "where": {"__name__": ["load", "sold"]}}
    stream = {
        "source": {"push": {"port": port, "key": {"env": "PUSH_KEY"}}},
        "format": {"otlp": form},
        "detector": "light",
    }
    with running(tmp_path, sqlite_template, {"bad": stream}) as daemon:
        daemon.until(lambda: not daemon.health.waiting())
        exporter = OTLPMetricExporter(
            endpoint=f"http://127.0.0.1:{port}/push/bad/v1/metrics",
            headers={"authorization": "Bearer a long random text"},
            compression=compression,
        )
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=1e9)
        provider = MeterProvider([reader], resource=Resource({"service.name": "shop"}))
        meter = provider.get_meter("test")
        load, sold = meter.create_gauge("load"), meter.create_counter("sold")
        meter.create_histogram("ignored").record(1.0)
        for turn in range(3):
            load.set(0.5 + turn)
            sold.add(10, {"route": "/buy"})
            assert provider.force_flush(20_000)
        daemon.until(lambda: daemon.read("bad") == 3)
        provider.shutdown()
        with daemon.database.read() as connection:
            assert dead_letters.query(connection) == []
            assert daemon.buffered("bad") == 0
        series = {daemon.daemon._engines["bad"].parts.scorer.series.key(slot) for slot in range(2)}
    assert series == {"load\0shop\0", "sold\0shop\0/buy"}
