"""``forewatch init --from`` a real PostgreSQL and a real Prometheus."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from ruamel.yaml import YAML
from sqlalchemy import make_url
from typer.testing import CliRunner, Result

from pipeline.cli.app import app
from pipeline.config.loader import load_config
from pipeline.core.errors import ConfigError, InputError
from storage.results import dead_letters
from storage.stream_state import positions
from tests.support.file_daemons import Running, running
from tests.support.postgres_server import free_port
from tests.support.receiver import Receiver, answer

PROMETHEUS = shutil.which("prometheus")
WIDE = {"COLUMNS": "400"}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def init(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["init", "f.yaml", *arguments], env=WIDE)


def problem(*arguments: str) -> str:
    result = init(*arguments)
    assert isinstance(result.exception, InputError | ConfigError), result.output
    assert not Path("f.yaml").exists()
    assert "\n" not in str(result.exception)
    return str(result.exception)


def written() -> dict[str, Any]:
    """Return the streams of the config."""
    content: dict[str, Any] = YAML(typ="safe").load(Path("f.yaml"))["streams"]
    return content


def scored(daemon: Running, stream: str) -> int:
    with daemon.database.read() as connection:
        return sum(one.counts.scored for one in positions.all_of(connection, stream))


# --------------------------------------------------------------------------------------------- SQL


def test_a_missing_file_of_sqlite_is_named_and_not_made() -> None:
    assert "there is no such file" in problem("--from", "sqlite:///missing.db")
    assert not Path("missing.db").exists()


def test_a_file_of_sqlite_with_a_space_in_its_name() -> None:
    with closing(sqlite3.connect("my plant.db")) as connection:
        connection.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, t TEXT, sensor TEXT, v REAL)")
        rows = [(f"2026-03-14 00:{i:02}:00", f"s{i % 2}", 20 + i % 7) for i in range(40)]
        connection.executemany("INSERT INTO readings (t, sensor, v) VALUES (?, ?, ?)", rows)
        connection.commit()
    result = init("--from", "sqlite:///my plant.db")
    assert result.exit_code == 0, result.output
    assert "40 of 40 records are decoded" in result.output


@pytest.fixture
def plant(postgres_url: str) -> Iterator[psycopg.Connection]:
    address = make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        yield connection


READINGS = """\
CREATE TABLE readings (
    id bigserial PRIMARY KEY, measured_at timestamptz, sensor text, temp numeric, energy_total float8,
    inserted_at timestamptz DEFAULT now(), note jsonb DEFAULT '{"a": 1}'
)"""
FILL = """\
INSERT INTO readings (measured_at, sensor, temp, energy_total)
SELECT to_timestamp(1764028800 + 60 * i), 's' || s, 20 + (i + s) % 7, 100 * s + i
FROM generate_series(0, 199) i, generate_series(1, 3) s ORDER BY i, s"""


@pytest.mark.postgres
def test_a_table_with_a_key(
    tmp_path: Path,
    postgres_url: str,
    plant: psycopg.Connection,
    sqlite_template: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant.execute(READINGS)
    plant.execute(FILL)
    done = init("--from", postgres_url)
    assert done.exit_code == 0, done.output
    assert "primary key" in done.output
    assert "usual interval" in done.output, done.output
    assert "_URL=URL before the start" in done.output
    stream = load_config(Path("f.yaml")).streams["readings"]
    assert stream.source.sql is not None
    assert stream.source.sql.cursor == "id"
    form = stream.format.csv
    assert form is not None
    assert (form.series, form.time, form.values) == (["sensor"], "measured_at", ["temp", "energy_total"])
    assert stream.counters == ["energy_total"]
    secret = stream.source.sql.url.env
    assert secret is not None
    assert postgres_url not in Path("f.yaml").read_text()
    monkeypatch.setenv(secret, postgres_url)
    assert CliRunner().invoke(app, ["check", "f.yaml", "--connect"]).exit_code == 0
    with running(tmp_path, sqlite_template, written()) as daemon:
        daemon.until(lambda: scored(daemon, "readings") == 600, 120)


@pytest.mark.postgres
def test_choice_of_table_query_and_cursor(postgres_url: str, plant: psycopg.Connection) -> None:
    plant.execute("CREATE SCHEMA hall")
    plant.execute('CREATE TABLE hall."Kiln 2" (at timestamp, v float8, updated_at timestamp)')
    plant.execute(
        'INSERT INTO hall."Kiln 2" SELECT to_timestamp(1764028800 + 10 * i), i % 9 + 0.5, now() + i * '
        "interval '1 s' FROM generate_series(0, 99) i"
    )
    plant.execute("CREATE VIEW texts AS SELECT 'a' AS a, 'b' AS b FROM generate_series(0, 9)")
    asked = problem("--from", postgres_url)
    assert "which table" in asked
    assert "--set query=" in asked
    done = init("--from", postgres_url, "--query", "hall.Kiln 2")
    assert done.exit_code == 0, done.output
    stream = load_config(Path("f.yaml")).streams["Kiln-2"]
    assert stream.source.sql is not None
    assert stream.format.csv is not None
    assert stream.source.sql.query == 'SELECT * FROM hall."Kiln 2"'
    assert (stream.source.sql.cursor, stream.format.csv.time) == ("updated_at", "at")
    assert stream.format.csv.values == ["v"]
    Path("f.yaml").unlink()
    done = init("--from", postgres_url, "--query", 'SELECT at, v FROM hall."Kiln 2" WHERE v > 1')
    assert done.exit_code == 0, done.output
    assert "older time" in done.output
    (stream,) = load_config(Path("f.yaml")).streams.values()
    assert stream.source.sql is not None
    assert stream.source.sql.cursor == "at"
    Path("f.yaml").unlink()
    assert "no column can be a cursor" in problem("--from", postgres_url, "--query", "texts")


@pytest.mark.postgres
def test_what_a_database_refuses(
    postgres_url: str, plant: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.execute("CREATE TABLE empty (id int, at timestamptz)")
    assert "no rows" in problem("--from", postgres_url)
    assert "there is no table other: empty" in problem("--from", postgres_url, "--query", "other")
    assert "the query fails" in problem("--from", postgres_url, "--query", "SELECT nothing FROM empty")
    closed = f"postgresql://reader:geheim@127.0.0.1:{free_port()}/plant"
    refused = problem("--from", closed)
    assert "does not answer" in refused
    assert "geheim" not in refused
    assert "driver is not installed" in problem("--from", "firebird://a@b/c")
    assert "--header is for Prometheus" in problem("--from", postgres_url, "--header", "a: b")
    assert "not set" in problem("--from", "env:NO_SUCH_URL")
    plant.execute("DROP TABLE empty")
    assert "no table" in problem("--from", postgres_url)


# ------------------------------------------------------------------------------------- Prometheus


@contextmanager
def prometheus(folder: Path, extra: str = "") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a Prometheus that scrapes itself, five times a second."""
    port = free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms}\nscrape_configs:\n  - job_name: self\n    static_configs: "
        f'[{{targets: ["127.0.0.1:{port}"]}}]\n{extra}'
    )
    assert PROMETHEUS is not None
    with open(folder / "log", "w") as out:
        command = [
            PROMETHEUS,
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.enable-lifecycle",
        ]
        running = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], cwd=folder, stdout=out, stderr=out
        )
    try:
        yield running, f"http://127.0.0.1:{port}"
    finally:
        running.kill()  # it would wait a minute for a receiver that is gone
        running.wait(60)


def until(condition: object, what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def samples_of(url: str) -> int:
    try:
        found = httpx.get(f"{url}/api/v1/query", params={"query": "count_over_time(up[10m])"}).json()
        return sum(int(one["value"][1]) for one in found["data"]["result"])
    except (httpx.HTTPError, ValueError):  # it starts
        return 0


@pytest.mark.skipif(
    PROMETHEUS is None, reason="Prometheus is not on this machine (apt-get install prometheus)"
)
@pytest.mark.long
@pytest.mark.timeout(500)
def test_a_prometheus_sends_to_the_streams_that_were_guessed(tmp_path: Path, sqlite_template: Path) -> None:
    home = tmp_path / "prometheus"
    home.mkdir()
    with prometheus(home) as (_, url):
        until(lambda: samples_of(url) >= 20, "Prometheus scrapes itself")
        asked = problem("--from", url)
        assert "which ones" in asked
        assert "--set metrics=VALUE, for example metrics=prometheus_" in asked
        metrics = "--set=metrics=prometheus_tsdb_head_[acs]*,go_goroutines,go_memstats_alloc_bytes,up"
        done = init("--from", url, "--query", '{job="self"}', metrics, "--set", "hours=0.1")
        assert done.exit_code == 0, done.output
        assert "learned, not set" in done.output
        assert "constant" in done.output
        assert "remote_write:" in done.output
        config = load_config(Path("f.yaml"))
        gauges, rates = config.streams["127-0-0-1"], config.streams["127-0-0-1-rates"]
        assert gauges.counters == []
        assert rates.counters == ["value"]
        chosen, rising = (one.format.remote_write.where for one in (gauges, rates))  # type: ignore[union-attr]
        assert "go_memstats_alloc_bytes" in chosen["__name__"]
        assert chosen["job"] == "self"
        assert "prometheus_tsdb_head_samples_appended_total" in rising["__name__"]  # type: ignore[index,call-overload]
        assert gauges.format.remote_write.series[:1] == ["__name__"]  # type: ignore[union-attr]
        assert CliRunner().invoke(app, ["check", "f.yaml"]).exit_code == 0
        streams, push = written(), free_port()
        for stream in streams.values():
            stream["source"]["push"]["port"] = push
        block = "remote_write:" + done.output.partition("remote_write:")[2].partition("wrote f.yaml")[0]
        with open(home / "prometheus.yml", "a") as file:
            file.write(block.replace("9466", str(push)))
        with running(tmp_path, sqlite_template, streams) as daemon:
            daemon.until(lambda: not daemon.health.waiting(), 120)
            assert httpx.post(f"{url}/-/reload").status_code == 200
            daemon.until(lambda: all(scored(daemon, name) >= 20 for name in streams), 120)
            with daemon.database.read() as connection:
                assert dead_letters.query(connection) == []


def test_what_a_prometheus_refuses() -> None:
    assert "does not answer" in problem("--from", f"http://127.0.0.1:{free_port()}")
    assert "write the labels" in problem("--from", "http://127.0.0.1:1", "--query", "rate(up[5m])")
    assert "words only" in problem("--from", "http://127.0.0.1:1", "--query", '{job=~"a.*"}')
    with Receiver() as server:
        server.behave = answer(401, b"no")
        refused = problem("--from", server.url)
        assert "refuses the credentials (401)" in refused
        assert "--header" in refused
        server.behave = answer(503, b"Service Unavailable")
        assert "answers 503 'Service Unavailable'; try again" in problem("--from", server.url)
        server.behave = answer(200, b"<html>")
        assert "is no Prometheus" in problem("--from", server.url)
        server.behave = answer(400, b'{"status": "error", "error": "parse error: unexpected"}')
        assert "parse error" in problem("--from", server.url)
        server.behave = answer(200, b'{"status": "success", "data": {"result": []}}')
        assert "no metric matches" in problem("--from", server.url, "--header", "Authorization: Bearer x")
        assert server.received[-1].headers["authorization"] == "Bearer x"
        assert server.received[-1].path.startswith("/hook/api/v1/query")
