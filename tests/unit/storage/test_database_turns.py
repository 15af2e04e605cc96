"""Threads of one process that write one SQLite file take turns; every wait ends."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.core.errors import StorageUnavailable
from storage.sql import database as session
from storage.sql.database import Database


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path):
    import shutil

    shutil.copy(sqlite_template, tmp_path / "turns.db")
    opened = Database(f"sqlite:///{tmp_path}/turns.db")
    yield opened
    opened.close()


def test_a_thread_that_writes_without_a_pause_lets_others_write(database):
    stop = threading.Event()

    def hog() -> None:
        while not stop.is_set():
            with database.begin() as connection:
                connection.execute(text("CREATE TABLE IF NOT EXISTS hog (x)"))
                time.sleep(0.02)

    thread = threading.Thread(target=hog)
    thread.start()
    try:
        for _ in range(20):
            with database.begin() as connection:
                connection.execute(text("SELECT 1"))
    finally:
        stop.set()
        thread.join()


def test_a_wait_that_is_too_long_is_an_error_and_the_next_one_gets_its_turn(
    database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session, "LOCK_TIMEOUT_SECONDS", 0.05)
    caught: list[Exception] = []

    def write() -> None:
        try:
            with database.begin():
                pass
        except StorageUnavailable as error:
            caught.append(error)

    with database.begin():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(60)
    assert "another thread has been writing" in str(caught[0])
    write()
    assert len(caught) == 1
