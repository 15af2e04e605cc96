"""Changes by commands are in the audit log, with author, host and values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from detectors.forecasters import lstm_features
from pipeline.cli import main
from pipeline.models import registry
from storage.access import audit
from storage.access.audit import AuditEntry
from storage.model_store import quarantine
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import RouterBench, anomaly

ROOT = Path(__file__).parents[3]
WEIGHTS = ROOT / "detectors" / "weights" / "shared_lstm.safetensors"
COMMANDS = ROOT / "pipeline" / "cli" / "commands"
CONFIG = """
database: sqlite:///{folder}/forewatch.db
streams:
  plant:
    source: {{memory: {{name: x}}}}
    format: {{json: {{series: [site], time: t, values: [temperature, pressure]}}}}
"""


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    (tmp_path / "forewatch.yaml").write_text(CONFIG.format(folder=tmp_path))
    with closing(Database(f"sqlite:///{tmp_path}/forewatch.db")) as opened:
        yield opened


@pytest.fixture
def run(tmp_path: Path, monkeypatch, capsys) -> Callable[..., str]:
    def command(*arguments: str) -> str:
        file = str(tmp_path / "forewatch.yaml")
        config = [arguments[0], file] if arguments[0] in ("train", "backfill") else [arguments[0]]
        option = [] if len(config) == 2 else ["--config", file]
        monkeypatch.setattr(sys, "argv", ["forewatch", *config, *arguments[1:], *option])
        with pytest.raises(SystemExit) as end:
            main()
        out, error = capsys.readouterr()
        assert not end.value.code, error
        return out.strip()

    return command


def entries(database: Database) -> dict[str, AuditEntry]:
    with database.read() as connection:
        return {one.action: one for one in audit.query(connection)}


def test_reviews_and_silences_are_written_down(database, run):
    one = anomaly()
    with database.begin() as connection:
        anomalies.upsert(connection, [one])
    bench = RouterBench(database)
    bench.happen(one)
    bench.settle()
    alert = run("alerts", "list", "--json")
    assert '"alert_id"' in alert
    found = alert.partition('"alert_id": "')[2].partition('"')[0]
    run("alerts", "ack", found, "--by", "ada")
    run("label", str(one.id), "maintenance", "--comment", "password=hunter2", "--by", "ada")
    silence = run("silences", "add", "--all", "--for", "2h", "--by", "ada")
    run("silences", "expire", silence)
    log = entries(database)
    assert set(log) == {"alert.acknowledge", "anomaly.label", "silence.add", "silence.end"}
    acknowledged, labelled = log["alert.acknowledge"], log["anomaly.label"]
    assert (acknowledged.actor, acknowledged.actor_kind, acknowledged.object) == ("ada", "command", found)
    assert acknowledged.address, "the name of the host"
    assert (labelled.detail["before"], labelled.detail["after"]) == (None, "maintenance")
    assert "hunter2" not in str(log)
    assert "ada" in run("audit", "--action", "silence")


def test_excluded_ranges_are_written_down_and_failed_changes_are_not(database, run, monkeypatch, tmp_path):
    number = run(
        "quarantine", "add", "--stream", "plant", "--from", "2026-01-01", "--to", "2026-01-02", "--why", "x"
    )
    run("quarantine", "remove", number)
    log = entries(database)
    assert (log["quarantine.add"].stream, log["quarantine.remove"].object) == ("plant", number)
    before = len(log)
    monkeypatch.setattr(
        sys, "argv", ["forewatch", "quarantine", "remove", "99", "-c", f"{tmp_path}/forewatch.yaml"]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert len(entries(database)) == before
    with database.read() as connection:
        assert quarantine.query(connection, stream="plant") == []


def test_trainings_and_imported_models_are_written_down(database, run, tmp_path):
    job = run("train", "--stream", "plant", "--by", "ada").partition("\n")[0]
    about = {"architecture": "shared_lstm", "features": {"version": lstm_features.VERSION}}
    path, sha256 = registry.publish(str(tmp_path / "elsewhere"), "plant", load_file(WEIGHTS), about)
    run("models", "import", path, "--stream", "plant", "--by", "ada")
    log = entries(database)
    assert (log["job.request"].object, log["job.request"].detail["kind"]) == (job, "train")
    assert (log["model.import"].actor, log["model.import"].detail["sha256"]) == ("ada", sha256)
    assert log["model.import"].detail["from"] == path


def test_a_backfill_and_an_upgrade_of_the_schema_are_written_down(database, run, tmp_path):
    rows = "".join(f"a,2026-01-01T00:{minute:02}:00Z,{minute},1\n" for minute in range(40))
    (tmp_path / "past.csv").write_text(f"site,t,temperature,pressure\n{rows}")
    config = (tmp_path / "forewatch.yaml").read_text()
    (tmp_path / "forewatch.yaml").write_text(config.replace("json:", "csv:"))
    run("db", "upgrade")
    assert "database.upgrade" not in entries(database), "nothing has changed"
    run("backfill", "--stream", "plant", "--input", str(tmp_path / "past.csv"))
    found = entries(database)["backfill.run"]
    assert (found.stream, found.detail["records"]) == ("plant", 40)
    assert found.detail["files"] == [str(tmp_path / "past.csv")]


def test_every_command_that_opens_a_transaction_records_its_change():
    for path in sorted(COMMANDS.glob("*.py")):
        text = path.read_text()
        written, recorded = text.count("database.begin()"), text.count("record(connection")
        own = text.count("create_key(") + text.count("revoke_key(")
        assert written <= recorded + own, (
            f"{path.name} changes the database without an entry in the audit log"
        )
