"""Trouble with one source: a fault names it, and the other streams of the daemon go on."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from pipeline.config.schema import FilesSourceConfig
from pipeline.core.types import FaultKind, Partition
from pipeline.sources.files import csv_reader
from pipeline.sources.files.source import FilesSource
from tests.support.file_daemons import running, stream

ROWS = b"".join(b"a,%d,%d\n" % (1_700_000_000 + i, i * 7919 % 1000) for i in range(3000))
HEADER = b"s,t,v\n"


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.csv").write_bytes(HEADER + ROWS)
    return tmp_path / "good" / "a.csv"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "bad").mkdir()
    return tmp_path / "bad"


@pytest.mark.parametrize("follow", [True, False])
def test_a_gzip_that_is_cut_off(tmp_path, sqlite_template, good, bad, follow):
    whole = gzip.compress(HEADER + ROWS)
    file = bad / "x.csv.gz"
    file.write_bytes(whole[: len(whole) // 2])
    streams = {"good": stream(good), "bad": stream(bad / "*.csv.gz", follow=follow)}
    with running(tmp_path, sqlite_template, streams) as one:
        one.until(lambda: one.open_faults("bad") and one.read("good") == 3000)
        (fault,) = one.open_faults("bad")
        assert (fault.kind, fault.partition) == (FaultKind.STUCK_STREAM, Partition(str(file), 0))
        assert str(file) in fault.message
        assert "complete copy" in fault.message
        one.until(lambda: 500 < one.read("bad") < 3000)
        one.until(lambda: "every partition is stopped" in one.health.waiting().get("stream bad", ""))
        time.sleep(3.0)
        assert len(one.faults("bad")) == 1, "it stays open while nothing can be read"
        assert one.open_faults("bad")
        append(good, b"a,1800000000,1\n")
        one.until(lambda: one.read("good") == 3001)
        file.write_bytes(whole)
        one.until(lambda: one.read("bad") == 3000)
        one.until(lambda: not one.open_faults("bad"))
        one.until(lambda: "stream bad" not in one.health.waiting())


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip at all",
        gzip.compress(HEADER + ROWS, mtime=0)[:12],
        b"",
        gzip.compress(b"\xff\xfe\x00,\n1,2\n", mtime=0),
    ],
)
def test_a_file_that_is_no_gzip(tmp_path, sqlite_template, good, bad, content):
    (bad / "a.csv.gz").write_bytes(content)
    (bad / "b.csv.gz").write_bytes(gzip.compress(HEADER + ROWS))
    streams = {"good": stream(good), "bad": stream(bad / "*.csv.gz")}
    with running(tmp_path, sqlite_template, streams) as one:
        one.until(lambda: one.read("good") == 3000 and one.read("bad") == 3000)
        if content:
            one.until(lambda: one.open_faults("bad"))
            assert str(bad / "a.csv.gz") in one.open_faults("bad")[0].message
        assert "stream bad" not in one.health.waiting(), "the other file is read"
        (bad / "a.csv.gz").write_bytes(gzip.compress(HEADER + ROWS.replace(b"a,", b"b,")))
        one.until(lambda: one.read("bad") == 6000 and not one.open_faults("bad"))


@pytest.mark.parametrize("call", ["stat", "open"])
@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")]
)
def test_an_operating_system_error(tmp_path, sqlite_template, good, bad, monkeypatch, call, error):
    file = bad / "x.csv"
    file.write_bytes(HEADER + ROWS)
    failing = True
    module, name = (os, "stat") if call == "stat" else (csv_reader, "open")
    real = os.stat if call == "stat" else open

    def fail(path, *arguments, **options):
        if failing and str(path) == str(file):
            raise error
        return real(path, *arguments, **options)

    monkeypatch.setattr(module, name, fail, raising=False)
    streams = {"good": stream(good), "bad": stream(bad / "*.csv")}
    with running(tmp_path, sqlite_template, streams) as one:
        one.until(lambda: one.open_faults("bad") and one.read("good") == 3000)
        (fault,) = one.open_faults("bad")
        assert str(file) in fault.message
        assert error.strerror in fault.message
        one.until(lambda: str(file) in one.health.waiting().get("stream bad", ""))
        failing = False
        one.until(lambda: one.read("bad") == 3000 and not one.open_faults("bad"))


def test_a_replaced_file_gets_advice_for_files(tmp_path, sqlite_template, good, bad):
    file = bad / "x.csv"
    file.write_bytes(HEADER + ROWS)
    streams = {"good": stream(good), "bad": stream(bad / "*.csv")}
    with running(tmp_path, sqlite_template, streams) as one:
        one.until(lambda: one.read("bad") == 3000)
        file.write_bytes(HEADER + b"b,1,1\n" + ROWS)
        one.until(lambda: one.open_faults("bad"))
        (fault,) = one.open_faults("bad")
        assert "on_gap" not in fault.message
        assert "file name of its own" in fault.message
        one.until(lambda: "every partition is stopped" in one.health.waiting().get("stream bad", ""))


def test_an_error_of_any_kind_stops_one_stream_for_a_while(tmp_path, sqlite_template, good, bad):
    (bad / "x.csv").write_bytes(HEADER + ROWS)
    streams = {"good": stream(good), "bad": stream(bad / "*.csv")}
    with running(tmp_path, sqlite_template, streams) as one:
        one.until(lambda: one.read("bad") == 3000)

        def fail(*arguments: object, **named: object) -> None:
            raise ZeroDivisionError("a defect")

        one.daemon._engines["bad"].parts.scorer.process = fail
        append(bad / "x.csv", b"a,1800000000,1\n")
        append(good, b"a,1800000000,1\n")
        one.until(lambda: any("a defect" in fault.message for fault in one.faults("bad")))
        one.until(lambda: one.read("bad") == 3001 and one.read("good") == 3001)
        one.until(lambda: not one.open_faults("bad") and not one.health.waiting())


@pytest.mark.parametrize("end", [b"", b"a,1,2"])
def test_rows_are_counted_once(tmp_path, monkeypatch, end):
    """The cost of the lag must not grow with the file."""
    file = tmp_path / "x.csv"
    file.write_bytes(HEADER + ROWS + end)
    source = FilesSource(FilesSourceConfig(paths=[str(file)], follow=True))
    (partition,) = source.poll(10, 0.0).assigned
    assert source.bounds([partition])[partition].end == 3000
    read = 0
    real = csv_reader.CsvFile._bytes

    def counted(self, stream, **options):
        nonlocal read
        data = real(self, stream, **options)
        read += len(data)
        return data

    monkeypatch.setattr(csv_reader.CsvFile, "_bytes", counted)
    for more in range(1, 6):
        append(file, b"\n" * bool(end) * (more == 1) + b"a,2,3\n")
        assert source.bounds([partition])[partition].end == 3000 + more + bool(end)
    assert read < 100
    source.close()


def test_check_refuses_the_name_of_a_topic(tmp_path):
    from typer.testing import CliRunner

    from pipeline.cli.app import app

    for name in ("metrics-*", "my topic", "", "..", "a" * 250, "ä"):
        tree = {
            "database": "sqlite:///x.db",
            "streams": {
                "plant": {
                    "source": {"kafka": {"brokers": ["localhost:9092"], "topics": ["good", name]}},
                    "format": {"json": {"series": ["s"], "time": "t", "values": ["v"]}},
                }
            },
        }
        (tmp_path / "forewatch.yaml").write_text(json.dumps(tree, indent=1))
        result = CliRunner().invoke(app, ["check", str(tmp_path / "forewatch.yaml")])
        assert result.exit_code != 0
        assert "streams.plant.source.kafka.topics" in str(result.exception or result.output), result.output


def test_a_database_file_that_is_away_for_a_while_is_waited_for(tmp_path, sqlite_template, good):
    """Its disk was unmounted, or it is restored from a backup; it ended the daemon."""
    with running(tmp_path, sqlite_template, {"good": stream(good)}) as one:
        one.until(lambda: one.read("good") == 3000)
        before = 3000
        file = tmp_path / "forewatch.db"
        file.rename(tmp_path / "away.db")
        append(good, b"".join(b"a,%d,1.0\n" % (1_800_000_000 + i) for i in range(50)))
        one.until(lambda: "the file is gone" in str(one.health.waiting()))
        (tmp_path / "away.db").rename(file)
        one.until(lambda: one.read("good") == before + 50)
        # A copy in its place is used, too: connections to the former file would write into nothing.
        copy = tmp_path / "copy.db"
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                file.with_name(file.name + suffix).unlink()
        copy.replace(file)
        append(good, b"".join(b"a,%d,1.0\n" % (1_800_000_050 + i) for i in range(50)))
        one.until(lambda: one.read("good") == before + 100)
    with closing(sqlite3.connect(file)) as stored:
        found = stored.execute("select sum(next_offset) from positions").fetchone()
    assert found == (before + 100,)
