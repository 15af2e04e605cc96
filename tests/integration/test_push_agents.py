"""The programs telegraf and OpenTelemetry Collector send to a daemon by the blocks of our how-to guide."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.core.types import Counts
from storage.results import dead_letters
from storage.stream_state import positions
from tests.docs.pages import ROOT, blocks
from tests.support.file_daemons import Running, running
from tests.support.postgres_server import free_port

KEY = "a long random text"
PAGE = ROOT / "docs" / "how-to" / "receive-pushed-data.md"
PLUGINS = (
    "inputs.mem,outputs.http,outputs.influxdb,outputs.influxdb_v2,"
    "serializers.influx,serializers.prometheusremotewrite"
)
BUILD = {
    "telegraf": f"go install -tags custom,{PLUGINS} github.com/influxdata/telegraf/cmd/telegraf@v1.37.2",
    "otelcol": "go install go.opentelemetry.io/collector/cmd/builder@v0.165.0; "
    "builder --config tests/support/otelcol.yaml; mv otelcol/otelcol ~/go/bin",
}
TELEGRAF = '[agent]\n  interval = "1s"\n  flush_interval = "1s"\n  hostname = "web 1"\n[[inputs.mem]]\n'
COLLECTOR = """
receivers: {hostmetrics: {collection_interval: 1s, scrapers: {memory: {}}}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {metrics: {receivers: [hostmetrics], exporters: [otlphttp/forewatch]}}
"""
LINES = {
    "line_protocol": {
        "series": ["measurement", "tags.host"],
        "values": {"used": "fields.used_percent"},
        "where": {"measurement": "mem"},
    }
}
SAMPLES = {
    "remote_write": {"series": ["__name__", "host"], "where": {"__name__": "mem_used_percent"}},
}
POINTS = {
    "otlp": {"series": ["__name__", "state"], "where": {"__name__": "system.memory.usage", "state": "used"}}
}


def documented(language: str, word: str) -> str:
    """Return the block of the guide that has a word."""
    (found,) = [block.text for block in blocks(PAGE, language) if word in block.text]
    return found


def lines_over_http() -> str:
    """Return what the guide says of line protocol by ``outputs.http``."""
    block = documented("toml", "outputs.http").replace("prometheusremotewrite", "influx")
    return "\n".join(line for line in block.splitlines() if "Content-" not in line)


def version_1() -> str:
    """Return what the guide says of ``outputs.influxdb``."""
    return (
        '[[outputs.influxdb]]\n  urls = ["http://forewatch:9466/push/node"]\n'
        "  skip_database_creation = true\n  [outputs.influxdb.http_headers]\n"
        '    Authorization = "Bearer ${FOREWATCH_PUSH_KEY}"\n'
    )


AGENTS = {
    "telegraf, remote write": ("telegraf", SAMPLES, lambda: TELEGRAF + documented("toml", "outputs.http")),
    "telegraf, InfluxDB 2": ("telegraf", LINES, lambda: TELEGRAF + documented("toml", "influxdb_v2")),
    "telegraf, InfluxDB 1": ("telegraf", LINES, lambda: TELEGRAF + version_1()),
    "telegraf, lines by HTTP": ("telegraf", LINES, lambda: TELEGRAF + lines_over_http()),
    "collector": ("otelcol", POINTS, lambda: documented("yml", "otlphttp/") + COLLECTOR),
    "collector, JSON": (
        "otelcol",
        POINTS,
        lambda: documented("yml", "otlphttp/").rstrip() + "\n    encoding: json\n" + COLLECTOR,
    ),
}


@contextmanager
def agent(program: str, config: str, port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of another project, with its log in the folder."""
    found = shutil.which(program, path=f"{os.environ['PATH']}{os.pathsep}{Path.home() / 'go/bin'}")
    if found is None:
        pytest.skip(f"{program} is not installed ({BUILD[program]})")
    path = folder / "agent.conf"
    for name in ("node", "shop"):
        config = config.replace(f"http://forewatch:9466/push/{name}", f"http://127.0.0.1:{port}/push/bad")
    path.write_text(config, encoding="utf-8")
    environment = os.environ | {"FOREWATCH_PUSH_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    with (folder / "agent.log").open("wb") as log:
        process = subprocess.Popen([found, "--config", str(path)], env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def counts(daemon: Running) -> Counts:
    with daemon.database.read() as connection:
        return sum((one.counts for one in positions.all_of(connection, "bad")), Counts())


@pytest.mark.parametrize("kind", AGENTS)
def test_a_program_of_others_sends_what_we_score(
    kind: str, tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, form, config = AGENTS[kind]
    monkeypatch.setenv("PUSH_KEY", KEY)
    port = free_port()
    stream = {
        "source": {"push": {"port": port, "key": {"env": "PUSH_KEY"}}},
        "format": form,
        "detector": "light",
        "lateness": "0s",
    }
    with agent(program, config(), port, tmp_path) as process:
        time.sleep(3)  # what it keeps while no daemon is there
        with running(tmp_path, sqlite_template, {"bad": stream}) as daemon:
            daemon.until(lambda: counts(daemon).scored >= 5 or process.poll() is not None)
            assert process.poll() is None, (tmp_path / "agent.log").read_text()
            with daemon.database.read() as connection:
                assert dead_letters.query(connection) == []
            scorer = daemon.daemon._engines["bad"].parts.scorer
            assert len(scorer.series) == 1, [scorer.series.key(slot) for slot in range(len(scorer.series))]
            assert scorer.series.key(0).split("\0")[1] in ("web 1", "used")
