"""Rows of a real PostgreSQL as records: nothing lost, nothing twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from pipeline.config.schema import Config, Stream
from pipeline.config.validation import broken_rules
from pipeline.core.errors import ConfigError, SourceUnavailable
from pipeline.services.preflight import probe_stream
from pipeline.sources import make_source
from pipeline.sources.sql import source as sql_source
from pipeline.sources.sql.source import SqlSource
from storage.history.reader import HistoryReader
from storage.sql.database import Database
from storage.stream_state import positions
from tests.faults.member import Member
from tests.support.file_daemons import running
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.postgres

TABLE = "CREATE TABLE readings (id bigint, at timestamptz, sensor text, value numeric, more jsonb)"
FORMAT = {"csv": {"series": "sensor", "time": "at", "values": ["value"]}}


@pytest.fixture
def plant(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> psycopg.Connection:
    monkeypatch.setenv("PLANT_URL", postgres_url)
    with psycopg.connect(_libpq(postgres_url), autocommit=True) as connection:
        connection.execute(TABLE)
        yield connection


def _libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def insert(plant: psycopg.Connection, *rows: tuple[int, int, str, float]) -> None:
    """Add (id, second, sensor, value)."""
    with plant.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO readings VALUES (%s, to_timestamp(1764028800 + %s), %s, %s, '{\"a\": 1}')", rows
        )


def opened(**keys: object) -> SqlSource:
    given = {"url": {"env": "PLANT_URL"}, "query": "SELECT * FROM readings", "cursor": "id", "every": "50ms"}
    stream = Stream.model_validate({"source": {"sql": given | {"settle": "0s"} | keys}, "format": FORMAT})
    source = make_source("plant", stream.source, stream.format)
    assert isinstance(source, SqlSource)
    return source


class Rows:
    """What a source returned."""

    def __init__(self, source: SqlSource, offset: int = 0) -> None:
        self.source, self.ids, self.sizes = source, [], []
        self.next = offset
        (partition,) = source.poll(10, 0.1).assigned
        source.seek(partition, offset)
        source.resume([partition])

    def once(self, most: int = 1000) -> None:
        for records in self.source.poll(most, 0.2).records:
            assert records.first_offset == self.next
            self.next = records.next_offset
            self.ids += records.table.column("id").to_pylist()
            self.sizes.append(len(records))

    def until(self, condition: Callable[[], object], most: int = 1000) -> Rows:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, self.ids
            self.once(most)
        return self


@pytest.mark.parametrize("cursor", ["id", "at"])
def test_rows_come_in_the_order_of_the_cursor_and_go_on_after_a_restart(plant, cursor):
    insert(plant, *((n, n, "a", n) for n in (3, 1, 2)))
    source = opened(cursor=cursor)
    rows = Rows(source).until(lambda: source._next)
    rows.until(lambda: len(rows.ids) == 3)
    assert rows.ids == [1, 2, 3]
    insert(plant, (4, 4, "a", 4.0))
    rows.until(lambda: len(rows.ids) == 4)
    source.close()
    insert(plant, (5, 5, "a", 5.0))
    again = Rows(opened(cursor=cursor), rows.next)
    again.until(lambda: again.ids)
    assert again.ids == [5]
    again.source.close()


def test_rows_of_one_value_come_together_also_over_a_page(plant, monkeypatch):
    monkeypatch.setattr(sql_source, "MAX_ROWS", 4)
    insert(plant, *((n // 3, n, f"s{n}", n) for n in range(30)), *((99, n, "x", n) for n in range(20)))
    source = opened(query="SELECT * FROM readings WHERE sensor <> 'none' -- a comment")
    rows = Rows(source).until(lambda: source._next)
    rows.until(lambda: len(rows.ids) == 50)
    assert rows.ids == sorted(rows.ids)
    assert rows.sizes[-1] == 20
    assert all(size % 3 == 0 for size in rows.sizes[:-1])
    source.close()


def test_the_newest_value_waits_for_rows_with_the_same_value(plant):
    insert(plant, (1, 1, "a", 1.0), (2, 2, "a", 2.0))
    source = opened(settle="1h")
    rows = Rows(source).until(lambda: source._waiting)
    assert (rows.ids, source.bounds([source._partition])[source._partition].end - rows.next) == ([1], 1)
    insert(plant, (2, 3, "b", 3.0))
    rows.until(lambda: source._waiting == 2)
    assert rows.ids == [1]
    insert(plant, (3, 4, "a", 4.0))
    rows.until(lambda: len(rows.ids) == 3)
    assert rows.ids == [1, 2, 2]
    source.close()


def test_the_newest_value_is_complete_when_no_other_comes(plant):
    insert(plant, (1, 1, "a", 1.0))
    source = opened(settle="300ms")
    rows = Rows(source)
    rows.until(lambda: rows.ids)
    assert rows.ids == [1]
    source.close()


def test_nothing_can_be_written(plant):
    insert(plant, (1, 1, "a", 1.0))
    plant.execute("CREATE FUNCTION harm() RETURNS int LANGUAGE sql AS 'DELETE FROM readings RETURNING 1'")
    source = opened(query="SELECT *, harm() FROM readings")
    rows = Rows(source)
    with pytest.raises(SourceUnavailable, match="read-only transaction"):
        rows.until(lambda: rows.ids)
    assert plant.execute("SELECT count(*) FROM readings").fetchone() == (1,)
    source.close()


def test_colons_and_percent_signs_of_a_query_stay(plant):
    insert(plant, (1, 1, "a:b%", 1.0), (2, 2, "c", 2.0))
    query = (
        "SELECT id, at, sensor, value::float8 AS value FROM readings WHERE sensor LIKE 'a:b%' AND 5 % 2 = 1;"
    )
    rows = Rows(opened(query=query))
    rows.until(lambda: rows.ids)
    assert rows.ids == [1]
    rows.source.close()


def test_a_cursor_that_is_missing_or_no_number_says_so(plant):
    insert(plant, (1, 1, "a", 1.0))
    for cursor, reason in (("nothing", "nothing"), ("sensor", "must be a whole number")):
        source = opened(cursor=cursor)
        rows = Rows(source)
        with pytest.raises(SourceUnavailable, match=reason):
            rows.until(lambda: False)
        source.close()


def test_a_start_at_the_newest_row(plant):
    insert(plant, (7, 1, "a", 1.0))
    source = opened(start="latest")
    assert source.start_offset(source._partition) == 8
    plant.execute("DELETE FROM readings")
    assert source.start_offset(source._partition) == 0
    source.close()


def test_urls_that_cannot_be_used_do_not_show_their_password(monkeypatch):
    for url, reason in (("nonsense", "not a database URL"), ("oracle://u:hush@h/d", "not installed")):
        monkeypatch.setenv("PLANT_URL", url)
        with pytest.raises(ConfigError, match=reason) as error:
            opened()
        assert "hush" not in str(error.value)


def test_a_database_that_is_away_is_waited_for(
    faulty_postgres: PostgresServer, monkeypatch, tmp_path, sqlite_template
):
    url = f"{faulty_postgres.address}/postgres"
    monkeypatch.setenv("PLANT_URL", url)
    monkeypatch.setattr(sql_source, "RETRY_SECONDS", 0.1)
    with psycopg.connect(_libpq(url), autocommit=True) as plant:
        plant.execute(TABLE)
        insert(plant, *((n, n, "a", n) for n in range(5)))
    keys = {"url": {"env": "PLANT_URL"}, "query": "SELECT * FROM readings", "cursor": "id"}
    stream = {
        "source": {"sql": keys | {"every": "50ms", "settle": "0s"}},
        "format": FORMAT,
        "detector": "light",
        "every": "1s",
    }
    with running(tmp_path, sqlite_template, {"bad": stream}) as daemon:
        daemon.until(lambda: daemon.read("bad") == 5)
        faulty_postgres.stop()
        daemon.until(lambda: any(fault.kind == "source_down" for fault in daemon.open_faults("bad")))
        faulty_postgres.start()
        with psycopg.connect(_libpq(url), autocommit=True) as plant:
            insert(plant, *((n, n, "a", n) for n in range(5, 9)))
        daemon.until(lambda: daemon.read("bad") == 9)
        daemon.until(lambda: not daemon.open_faults("bad"))
        with daemon.database.read() as connection:
            (position,) = positions.all_of(connection, "bad")
    assert (position.counts.scored, position.counts.filtered) == (9, 0)


CONFIG = """\
database: sqlite:///{folder}/forewatch.db
http: null
storage: {{snapshot_every: 1s}}
streams:
  plant:
    source:
      sql: {{url: {{env: PLANT_URL}}, query: SELECT * FROM readings, cursor: id, every: 20ms, settle: 200ms}}
    format: {{csv: {{series: sensor, time: at, values: [value]}}}}
    detector: light
    every: 1s
    revise: 0s
"""


@pytest.mark.timeout(500)
def test_each_row_is_scored_once_through_kills(plant, postgres_url, tmp_path: Path, sqlite_template: Path):
    """Three rows have one cursor value, and a writer adds more all the time."""
    config = tmp_path / "forewatch.yaml"
    config.write_text(CONFIG.format(folder=tmp_path))
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    secret = tmp_path / "url"
    secret.write_text(postgres_url)
    config.write_text(config.read_text().replace("{env: PLANT_URL}", f"{{file: {secret}}}"))
    database = Database(f"sqlite:///{tmp_path}/forewatch.db")
    stopping, written = threading.Event(), []

    def write() -> None:
        with psycopg.connect(_libpq(postgres_url), autocommit=True) as connection:
            while not stopping.is_set():
                number = len(written)
                with connection.transaction():
                    insert(connection, *((number, number, sensor, number % 7) for sensor in "abc"))
                written.append(number)
                time.sleep(0.01)

    def scored() -> int:
        with database.read() as connection:
            return sum(one.counts.scored for one in positions.all_of(connection, "plant"))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    members = [Member(config, tmp_path / "member0")]
    try:
        for kill in range(2):
            before = scored()
            members[-1].until(lambda before=before: scored() > before + 60, "it scores", 120)
            members[-1].kill()
            members.append(Member(config, tmp_path / f"member{kill + 1}"))
        stopping.set()
        writer.join(60)
        members[-1].until(lambda: scored() >= 3 * len(written), "all of it is scored", 120)
        members[-1].leave(120)
    finally:
        stopping.set()
        members[-1].kill()
    history = HistoryReader(str(tmp_path / "forewatch.db.history")).read("plant").to_pandas()
    points = sorted(zip(history["series"].astype(str), history["time"].astype("int64"), strict=True))
    second = 1_000_000_000
    assert points == sorted((s, (1_764_028_800 + n) * second) for s in "abc" for n in written)
    assert scored() == 3 * len(written)
    database.close()


def test_a_check_reads_rows(plant):
    insert(plant, (1, 1, "a", 1.0), (2, 2, "b", 2.0))
    keys = {"url": {"env": "PLANT_URL"}, "query": "SELECT * FROM readings", "cursor": "id"}
    probe = probe_stream("plant", Stream.model_validate({"source": {"sql": keys}, "format": FORMAT}))
    assert (probe.error, probe.read, probe.decoded) == (None, 2, 2)
    assert probe.samples[0].series == "a"


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"query": "DELETE FROM readings"}, "is not a SELECT statement"),
        ({"query": "SELECT 1; DROP TABLE x"}, "holds a semicolon"),
        ({"every": "0s"}, "is not above 0"),
    ],
)
def test_what_the_config_refuses(keys, text):
    given = {"url": {"env": "X"}, "query": "WITH a AS (SELECT 1) SELECT * FROM a;", "cursor": "id"}
    fine = {"streams": {"plant": {"source": {"sql": given}, "format": FORMAT}}}
    assert broken_rules(Config.model_validate(fine)) == []
    bad = {"streams": {"plant": {"source": {"sql": given | keys}, "format": FORMAT}}}
    (finding,) = broken_rules(Config.model_validate(bad))
    assert finding.what == text


def test_a_query_without_a_cursor_is_refused():
    with pytest.raises(ValueError, match="cursor"):
        Stream.model_validate(
            {"source": {"sql": {"url": {"env": "X"}, "query": "SELECT 1"}}, "format": FORMAT}
        )
