"""Opening a database: locks, versions, and messages to the user."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from pipeline.core.errors import ConfigError, StorageError, StorageUnavailable
from pipeline.core.types import Partition
from storage.sql import migrate
from storage.sql.database import Database
from storage.stream_state import positions, snapshots
from storage.tables.stream import Base


def test_the_migrations_make_exactly_the_tables_of_the_code(database):
    with database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrate.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_up_down_and_up_again(database):
    with database.begin() as connection:
        command.downgrade(migrate.config(connection), "base")
        assert set(inspect(connection).get_table_names()) <= {migrate.VERSION_TABLE}
    assert database.current() is None
    database.upgrade()
    database.upgrade()
    assert database.current() == database.head()


def test_every_commit_changes_the_version_of_the_data(database, database_url):
    other = Database(database_url)
    seen = [database.version()]
    for number in range(3):
        for one in (other, database):
            positions.acquire(one, "plant", Partition(f"{one is other}", number), "me", "")
            seen.append(database.version())
    other.close()
    assert None not in seen
    assert all(one != following for one, following in pairwise(seen))
    # The upkeep of PostgreSQL may count as a change.
    assert any(database.version() == database.version() for _ in range(50))


def test_a_file_that_another_one_replaced_has_another_version(tmp_path, sqlite_template):
    file, copy = tmp_path / "a.db", tmp_path / "b.db"
    file.write_bytes(sqlite_template.read_bytes())
    copy.write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{file}")
    before = database.version()
    copy.replace(file)
    assert database.version() not in (None, before)
    file.unlink()
    assert database.version() is None
    database.close()


def test_the_versions_are_one_line():
    assert len(ScriptDirectory.from_config(migrate.config()).get_heads()) == 1


def test_a_database_without_tables_says_what_to_run(database_url):
    database = Database(database_url)
    with pytest.raises(StorageError, match="forewatch db upgrade"):
        database.require_head()
    with pytest.raises(StorageError, match="forewatch db upgrade") as caught, database.read() as connection:
        positions.all_of(connection)
    assert not isinstance(caught.value, StorageUnavailable)
    database.close()


def test_a_newer_database_is_refused(database):
    with database.begin() as connection:
        connection.execute(text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(StorageError, match="a newer one has upgraded it"):
        database.upgrade()
    with pytest.raises(StorageError, match="9999"):
        database.require_head()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("forewatch.db", "not a URL"),
        ("mysql://host/db", "mysql is not supported"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
    ],
)
def test_urls_that_cannot_be_used(url, says):
    with pytest.raises(ConfigError, match=says):
        Database(url)


def test_the_password_is_never_shown():
    database = Database("postgresql://me@127.0.0.1:1/none", password="hunter2")
    with pytest.raises(StorageUnavailable) as caught, database.read():
        pass
    assert "hunter2" not in f"{database} {caught.value}"
    assert "127.0.0.1" in str(caught.value)


def test_looking_does_not_create_a_database(tmp_path):
    path = tmp_path / "typo.db"
    with pytest.raises(StorageError, match=r"typo\.db"), Database(f"sqlite:///{path}").read():
        pass
    assert not path.exists()


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("x" * 5000)
    with pytest.raises(StorageError, match="not a database") as caught, Database(f"sqlite:///{path}").read():
        pass
    assert not isinstance(caught.value, StorageUnavailable)


def test_a_place_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    url = f"sqlite:///{tmp_path}/file/forewatch.db"
    with pytest.raises(StorageError, match="cannot lock"):
        Database(url, exclusive=True)
    with pytest.raises(StorageError, match="cannot create"):
        Database(url).upgrade()


def test_one_daemon_a_file_and_readers_beside_it(tmp_path):
    url = f"sqlite:///{tmp_path}/odd name?#%.db"
    daemon = Database(url, exclusive=True)
    daemon.upgrade()
    with pytest.raises(StorageError, match=f"process {os.getpid()}"):
        Database(url, exclusive=True)
    look = "import sys; from storage.sql.database import Database; Database(sys.argv[1]).require_head(); print('seen')"
    with daemon.begin():
        reader = subprocess.run(
            [sys.executable, "-c", look, url], capture_output=True, text=True, timeout=120, check=False
        )
    assert reader.stdout == "seen\n", reader.stderr
    daemon.close()
    Database(url, exclusive=True).close()


def test_the_lock_of_a_killed_daemon_is_free(tmp_path):
    url = f"sqlite:///{tmp_path}/forewatch.db"
    hold = "import sys, time; from storage.sql.database import Database; d = Database(sys.argv[1], exclusive=True); print('held', flush=True); time.sleep(60)"
    daemon = subprocess.Popen([sys.executable, "-c", hold, url], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout.readline() == "held\n"
    with pytest.raises(StorageError, match=f"process {daemon.pid}"):
        Database(url, exclusive=True)
    daemon.kill()
    daemon.wait()
    Database(url, exclusive=True).close()


def test_a_committed_transaction_is_durable_and_a_read_is_one_view(database):
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
    with database.read() as reading:
        assert reading.execute(text("SELECT count(*) FROM t")).scalar() == 0
        with database.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (1)"))
        assert reading.execute(text("SELECT count(*) FROM t")).scalar() == 0
        if database.dialect == "sqlite":
            assert reading.execute(text("PRAGMA synchronous")).scalar() == 2
    with database.read() as reading:
        assert reading.execute(text("SELECT count(*) FROM t")).scalar() == 1


def test_daemons_that_start_together_upgrade_once(database_url):
    # A daemon tries again after the 5 s in which SQLite waits for a lock.
    patient = "import sys; from storage.sql import database; database.LOCK_TIMEOUT_SECONDS = 120.0; "
    upgrade = f"{patient}database.Database(sys.argv[1]).upgrade()"
    daemons = [
        subprocess.Popen([sys.executable, "-c", upgrade, database_url], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for daemon in daemons:
        _, errors = daemon.communicate(timeout=240)
        assert daemon.returncode == 0, errors
    Database(database_url).require_head()


def test_a_full_disk_is_unavailable_until_there_is_room(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/forewatch.db")
    database.upgrade()
    partition = Partition("sensors", 0)
    position = positions.acquire(database, "plant", partition, "me", "")

    def save(pages: int) -> None:
        with database.begin() as connection:
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))
            snapshots.save(connection, position, 1, [b"x" * 1_000_000])

    with pytest.raises(StorageUnavailable, match=r"db: database or disk is full; free some space there$"):
        save(100)
    save(1_000_000)
    with database.read() as connection:
        assert snapshots.load(connection, "plant", partition).size_bytes == 1_000_000
    database.close()
