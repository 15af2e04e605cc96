"""Files of backups: complete, private, refused if they are none."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

import pytest
from alembic import command

from pipeline.config.schema import Config
from pipeline.core.errors import ForewatchError, InputError, NotInstalled, StorageError
from pipeline.core.types import Partition
from pipeline.services.database_backup import EPOCH_STEP, back_up_database, restore_database
from storage.sql import migrate
from storage.sql.database import Database
from storage.stream_state import positions
from tests.support.moved_database import page_dump
from tests.support.postgres_server import create_database, drop_database, tools_path

#: Revision whose schema has fewer tables, and no view.
BEFORE_VIEWS_AND_KEYS = "0009"
PARTITION = Partition("sensors", 0)


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", tools_path())


def config_of(url: str) -> Config:
    stream = {
        "source": {"memory": {}},
        "format": {"csv": {"series": "s", "time": "t", "values": ["v"]}},
    }
    return Config.model_validate({"database": url, "http": None, "streams": {"plant": stream}})


def epochs(database: Database) -> list[int]:
    with database.read() as connection:
        return [position.epoch for position in positions.all_of(connection, "plant")]


def test_a_restored_position_has_a_higher_epoch(database: Database, database_url: str, tmp_path: Path):
    config, file = config_of(database_url), tmp_path / "backups" / "first"
    positions.acquire(database, "plant", PARTITION, "here", "log")
    assert back_up_database(config, file) == file.stat().st_size
    assert file.stat().st_mode & 0o777 == 0o600
    positions.acquire(database, "plant", PARTITION, "there", "log")
    database.close()
    with pytest.raises(StorageError, match="--replace"):
        restore_database(config, file)
    assert epochs(database) == [2]
    database.close()
    restore_database(config, file, replace=True)
    assert epochs(database) == [1 + EPOCH_STEP]


@pytest.mark.postgres
def test_the_dump_of_the_page_for_containers_is_a_backup(postgres_url: str, tmp_path: Path):
    database = Database(postgres_url)
    database.upgrade()
    positions.acquire(database, "plant", PARTITION, "here", "log")
    database.close()
    subprocess.run(page_dump(postgres_url, tmp_path / "dump"), check=True, capture_output=True)
    restore_database(config_of(postgres_url), tmp_path / "dump", replace=True)
    assert epochs(Database(postgres_url)) == [1 + EPOCH_STEP]


@pytest.mark.postgres
def test_tables_that_an_older_backup_lacks_are_deleted(
    postgres_server, postgres_template: str, postgres_url: str, tmp_path: Path
):
    older = Database(postgres_url)
    with older.begin() as connection:
        command.upgrade(migrate.config(connection), BEFORE_VIEWS_AND_KEYS)
    older.close()
    back_up_database(config_of(postgres_url), tmp_path / "older")
    url = create_database(postgres_server, postgres_template)
    restore_database(config_of(url), tmp_path / "older", replace=True)
    database = Database(url)
    assert database.current() == BEFORE_VIEWS_AND_KEYS
    database.upgrade()
    assert database.current() == database.head()
    database.close()
    drop_database(postgres_server, url)


def test_an_existing_file_is_kept(database: Database, database_url: str, tmp_path: Path):
    file = tmp_path / "kept"
    file.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        back_up_database(config_of(database_url), file)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    "content", [b"", b"not a backup", b"SQLite format 3\x00" + b"\xff" * 5000, b"PGDMP\x01"]
)
def test_a_file_that_is_no_backup_changes_nothing(
    database: Database, database_url: str, tmp_path: Path, content: bytes
):
    positions.acquire(database, "plant", PARTITION, "here", "log")
    database.close()
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(ForewatchError, match=r"bad|input file|archive"):
        restore_database(config_of(database_url), tmp_path / "bad", replace=True)
    assert epochs(database) == [1]
    assert not list(tmp_path.glob("*.part"))


def test_an_empty_database_has_no_backup(database_url: str, tmp_path: Path):
    with pytest.raises(StorageError):
        back_up_database(config_of(database_url), tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


@pytest.mark.postgres
def test_a_missing_tool_is_named(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    database = Database(postgres_url)
    database.upgrade()
    database.close()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match="postgresql-client"):
        back_up_database(config_of(postgres_url), tmp_path / "backup")
    assert not list(tmp_path.glob("backup*"))


def test_the_copy_of_sqlite_is_one_file_without_a_log(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/forewatch.db"
    database = Database(url)
    database.upgrade()
    back_up_database(config_of(url), tmp_path / "backup")
    database.close()
    copy = sqlite3.connect(tmp_path / "backup")
    assert copy.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    copy.close()
    assert sorted(path.name for path in tmp_path.glob("backup*")) == ["backup"]
