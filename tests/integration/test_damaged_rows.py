"""A damaged row of a result costs that row: commands, the daemon and other rows go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.core.types import Fault, FaultKind
from storage.results import anomalies, faults
from storage.sql import damaged_rows
from storage.sql.database import Database
from tests.integration.test_followed_folder import HEADER, ROWS, found, plant, rows
from tests.support.alerting import anomaly
from tests.support.file_daemons import running

#: Of SQLite, which stores any value in any column.
OF_SQLITE = ("labels = '{bad'", "start_ns = 'x'", "observed = 'x'", "points = 2.5")
#: Of both: JSON of another shape, and words of another version.
OF_BOTH = (
    "severity = 'huge'",
    "state = 'odd'",
    "observed = '[]'",
    "channels = '[]'",
    'contribution = \'["a", "b"]\'',
)


@pytest.mark.parametrize("change", [*OF_SQLITE, *OF_BOTH])
def test_a_damaged_anomaly_is_skipped_and_named(database: Database, change: str, caplog, monkeypatch) -> None:
    monkeypatch.setattr(damaged_rows, "_logged", set())
    if database.dialect != "sqlite" and change in OF_SQLITE:
        pytest.skip("PostgreSQL refuses this value")
    some = [anomaly(f"b2/{i}") for i in range(5)]
    with database.begin() as connection:
        anomalies.upsert(connection, some)
        connection.execute(text(f"UPDATE anomalies SET {change} WHERE series = 'b2/3'"))
    with database.read() as connection:
        shown = anomalies.query(connection)
        anomalies.query(connection)
        assert [id_ for id_, _ in anomalies.damaged(connection)] == [some[3].id]
    assert {one.series for one in shown} == {"b2/0", "b2/1", "b2/2", "b2/4"}
    assert [str(some[3].id) in record.getMessage() for record in caplog.records] == [True]


def test_a_fault_of_a_kind_of_a_later_version_is_skipped(database: Database) -> None:
    with database.begin() as connection:
        faults.save(connection, Fault("plant", FaultKind.SOURCE_DOWN, "gone", 1))
        faults.save(connection, Fault("plant", FaultKind.STUCK_STREAM, "stands still", 2))
        connection.execute(text("UPDATE faults SET kind = 'of a later version' WHERE started_ns = 2"))
    with database.read() as connection:
        assert [fault.message for fault in faults.query(connection, stream="plant")] == ["gone"]


@pytest.mark.parametrize("change", ["labels = '{bad'", "severity = 'huge'"])
def test_an_open_anomaly_that_is_damaged_stops_no_stream(tmp_path, sqlite_template, change: str) -> None:
    """It was a loop of restarts of the stream that only SQL could end."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1.csv").write_bytes(HEADER + rows("a", 0, ROWS, outlier=True))
    streams = plant(folder)
    with running(tmp_path, sqlite_template, streams) as one:
        one.until(lambda: one.read("plant") == ROWS and found(one))
    database = Database(f"sqlite:///{tmp_path}/forewatch.db")
    with database.begin() as connection:
        connection.execute(text(f"UPDATE anomalies SET {change}"))
    (folder / "2.csv").write_bytes(HEADER + rows("a", ROWS, ROWS, outlier=True))
    with running(tmp_path, sqlite_template, streams) as one:
        one.until(lambda: one.read("plant") == 2 * ROWS and found(one))
        assert not one.faults("plant")
    database.close()
    assert checked(tmp_path, streams) == (4, ["anomaly"])
    checked(tmp_path, streams, "--repair")
    assert checked(tmp_path, streams) == (0, [])


def checked(folder: Path, streams: dict, *options: str) -> tuple[int, list[str]]:
    """Run ``db check``, and return its exit code and the kinds of damage."""
    config = folder / "forewatch.yaml"
    config.write_text(
        json.dumps({"database": f"sqlite:///{folder}/forewatch.db", "http": None, "streams": streams})
    )
    result = CliRunner().invoke(app, ["db", "check", "--json", "--config", str(config), *options])
    return result.exit_code, [one["kind"] for one in json.loads(result.stdout)]
