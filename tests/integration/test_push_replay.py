"""Dead letters of what was pushed: scored after the config was repaired, exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from pipeline.cli.app import app
from storage.results import dead_letters
from storage.stream_state import positions
from tests.support.file_daemons import Running, running
from tests.support.postgres_server import free_port
from tests.support.remote_write import post

T = 1_764_028_800
STREAMS: dict[str, dict[str, Any]] = {
    # A word in place of a number; a clock that is years ahead; a delta among totals.
    "lines": {"line_protocol": {"series": "tags.host", "values": {"v": "fields.v"}}},
    "samples": {"remote_write": {"series": "host"}},
    "metrics": {"otlp": {"series": "host"}},
}
KEYS: dict[str, dict[str, Any]] = {
    "lines": {},
    "samples": {"future": "1h"},
    "metrics": {"counters": ["value"]},
}


def streams(port: int, *, repaired: bool) -> dict[str, Any]:
    """Return the streams; repaired: what was a dead letter is read."""
    found = {}
    for name, form in STREAMS.items():
        keys: dict[str, Any] = {"revise": "30d"} if repaired else KEYS[name]
        ((kind, inner),) = form.items()
        if repaired and name == "lines":
            inner = {**inner, "decimal": ","}
        found[name] = {
            "source": {"push": {"port": port}},
            "format": {kind: inner},
            "detector": "light",
            "every": "1s",
            **keys,
        }
        if repaired and name == "samples":
            found[name]["future"] = None
    return found


def metrics() -> bytes:
    """Return a request with a total and a delta, each of one point."""
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    kinds = {
        "a": AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE,
        "b": AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA,
    }
    for host, kind in kinds.items():
        metric = scope.metrics.add(name="sold")
        metric.sum.aggregation_temporality = kind
        metric.sum.is_monotonic = True
        point = metric.sum.data_points.add(
            time_unix_nano=T * 10**9, start_time_unix_nano=(T - 10) * 10**9, as_double=5
        )
        point.attributes.add(key="host").value.string_value = host
    return request.SerializeToString()


def send(port: int) -> None:
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}/push")
    lines = f'm,host=a v=1 {T}000000000\nm,host=b v="1,5" {T}000000000\n'
    assert client.post("/lines", content=lines).status_code == 204
    kind = {"content-type": "application/x-protobuf"}
    assert client.post("/metrics", content=metrics(), headers=kind).status_code == 204
    ahead = T + 20 * 366 * 86_400
    both = [({"host": "a"}, [(1.0, T * 1000)]), ({"host": "b"}, [(2.0, ahead * 1000)])]
    assert post(client, f"http://127.0.0.1:{port}/push/samples", both).status_code == 204


def scored(daemon: Running, name: str) -> int:
    with daemon.database.read() as connection:
        return sum(one.counts.scored for one in positions.all_of(connection, name))


def replay(*arguments: str) -> Result:
    done = CliRunner().invoke(
        app, ["deadletters", "replay", "-c", "f.yaml", *arguments], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_what_was_pushed_is_scored_after_a_repair(
    tmp_path: Path, sqlite_template: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    port = free_port()
    with running(tmp_path, sqlite_template, streams(port, repaired=False)) as daemon:
        daemon.until(lambda: not daemon.health.waiting())
        send(port)
        daemon.until(lambda: all(daemon.read(name) for name in STREAMS))
        with daemon.database.read() as connection:
            reasons = {one.letter.stream: one.letter.reason for one in dead_letters.query(connection)}
    assert reasons == {"lines": "wrong_type", "samples": "future", "metrics": "wrong_type"}
    database = f"sqlite:///{tmp_path}/forewatch.db"
    right = streams(port, repaired=True)
    YAML().dump({"database": database, "http": None, "streams": right}, Path("f.yaml"))
    assert "3 of 3 can be decoded; nothing was written" in replay("--dry-run").output
    with running(tmp_path, sqlite_template, right) as daemon:
        daemon.until(lambda: not daemon.health.waiting())
        assert "3 were written to their log again" in replay().output
        daemon.until(lambda: all(scored(daemon, name) == 2 for name in STREAMS))
        assert "0 of 0" in replay().output
        with daemon.database.read() as connection:
            ids = [str(one.id) for one in dead_letters.query(connection)]
        assert "3 were written" in replay(*ids).output  # by their numbers, though they were replayed
        daemon.until(lambda: not list(tmp_path.glob("*.spool/*/again/*")))
        send(port)
        daemon.until(lambda: all(daemon.read(name) == 3 for name in STREAMS))
        with daemon.database.read() as connection:
            assert len(dead_letters.query(connection)) == 3
        assert {scored(daemon, name) for name in STREAMS} == {2}
