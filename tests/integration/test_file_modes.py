"""Modes of the files that forewatch writes, under a umask that allows everything."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from detectors import artifacts
from pipeline.config.schema import Config
from pipeline.local_kafka.broker import LocalBroker
from pipeline.services.safety import safety_warnings
from storage.history.segments import Segment, SegmentStore
from storage.sql.database import Database

STREAM = {"source": {"memory": {}}, "format": {"json": {"series": "s", "time": "t", "values": ["v"]}}}


@pytest.fixture(autouse=True)
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


SEGMENT = Segment("plant/t/0/abcdef01", 0, 10, 1, 0, 9, 100)


def loose(folder: Path) -> list[str]:
    """The files and folders below ``folder`` with any right for group or others."""
    return [
        f"{path.relative_to(folder)} {stat.filemode(path.stat().st_mode)}"
        for path in sorted(folder.rglob("*"))
        if path.stat().st_mode & 0o077
    ]


def test_database_history_and_models_are_private(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/deep/folder/forewatch.db", exclusive=True)
    try:
        database.upgrade()
        with database.begin():
            SegmentStore(f"{tmp_path}/deep/history").write(SEGMENT, b"data")
            artifacts.save(f"{tmp_path}/deep/models/plant/v1", {"w": np.zeros(3, np.float32)}, {"a": 1})
            names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
            assert names >= {
                "forewatch.db",
                "forewatch.db-wal",
                "forewatch.db-shm",
                "forewatch.db.lock",
                "v1.json",
            }
            assert loose(tmp_path) == []
    finally:
        database.close()


def test_files_that_exist_keep_their_mode_and_check_warns(tmp_path):
    file = tmp_path / "forewatch.db"
    file.touch(0o644)
    history = tmp_path / "forewatch.db.history"
    history.mkdir(0o755)
    config = Config.model_validate({"database": f"sqlite:///{file}", "streams": {"plant": STREAM}})
    database = Database(config.database)
    database.upgrade()
    database.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert safety_warnings(config) == [
        f"storage.history_path: other users can read 1 files or folders; run: chmod -R go= {history}",
        f"database: other users can read 1 files or folders; run: chmod -R go= {file}",
    ]
    file.chmod(0o600)
    history.chmod(0o700)
    assert safety_warnings(config) == []


@pytest.mark.kafka
def test_the_data_of_the_local_broker_are_private(tmp_path):
    broker = LocalBroker(tmp_path / "kafka")
    broker.up()
    try:
        assert list((tmp_path / "kafka" / "data").rglob("*.log"))
        assert loose(tmp_path) == []
    finally:
        broker.down()
