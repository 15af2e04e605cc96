"""Backup and restore of the database.

SQLite is copied by its own backup interface, beside a running daemon. PostgreSQL is dumped and restored by
pg_dump and pg_restore, which see one moment of the database. A restored database continues at its own
positions; the offsets that Kafka shows to operators do not count.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import suppress
from pathlib import Path

from sqlalchemy import text, update

from pipeline.config.schema import Config
from pipeline.core.errors import InputError, NotInstalled, StorageError
from pipeline.core.private_files import make_private_folder, private_opener
from pipeline.core.secret_text import hide_secrets
from pipeline.database import database_of
from storage.sql.database import Database
from storage.sql.views import create_views, drop_views
from storage.tables import access, alerting, models  # noqa: F401  their tables are part of the metadata
from storage.tables.stream import Base, PositionRow

#: A restored position gets an epoch above those that were given out since the backup. Owners from that time
#: are fenced, and recorded history of the new owners replaces theirs.
EPOCH_STEP = 1_000_000
SQLITE_HEADER = b"SQLite format 3\x00"
POSTGRES_HEADER = b"PGDMP"

_OTHERS = text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'forewatch' AND pid <> pg_backend_pid()"
)


def back_up_database(config: Config, file: Path) -> int:
    """Write a backup of the database to ``file``, and return its bytes.

    The file is complete or absent.

    Raises:
        InputError: The file exists or cannot be written.
        NotInstalled: pg_dump is missing.
        StorageError: The database cannot be read.
    """
    if file.exists():
        raise InputError(f"{file} exists; name another file, or remove it")
    database = database_of(config)
    part = file.with_name(file.name + ".part")
    try:
        if database.current() is None:
            raise StorageError(f"{database} has no tables; there is nothing to back up")
        make_private_folder(file.parent)
        os.close(private_opener(str(part), os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        if database.dialect == "sqlite":
            _copy_sqlite(Path(database.url.database or ""), part)
        else:
            _run_postgres_tool(database, "pg_dump", "--format=custom", "--no-owner", f"--file={part}")
        _synchronize(part)
        part.rename(file)
        _synchronize(file.parent)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
        database.close()
    return file.stat().st_size


def restore_database(config: Config, file: Path, *, replace: bool = False) -> None:
    """Make the database that of a backup.

    Args:
        config: Names the database.
        file: The backup.
        replace: Delete what the database has now.

    Raises:
        InputError: The file is not a backup of this kind of database.
        NotInstalled: pg_restore is missing.
        StorageError: The database has tables, is in use or cannot be written. It is unchanged then.
    """
    database = database_of(config, exclusive=True)
    try:
        _require_backup(file, SQLITE_HEADER if database.dialect == "sqlite" else POSTGRES_HEADER)
        _require_free(database, replace)
        if database.dialect == "sqlite":
            _restore_sqlite(file, Path(database.url.database or ""))
        else:
            _restore_postgres(file, database)
        with database.begin() as connection:
            connection.execute(update(PositionRow).values(epoch=PositionRow.epoch + EPOCH_STEP))
    finally:
        database.close()


def _restore_postgres(file: Path, database: Database) -> None:
    """Replace the tables, and delete those that the backup does not have.

    The view would keep a backup that does not have it from dropping them.
    """
    viewed = database.current() is not None
    with database.begin() as connection:
        drop_views(connection)
    try:
        listed = _run_postgres_tool(database, "pg_restore", "--list", str(file))
        _run_postgres_tool(
            database,
            "pg_restore",
            *("--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error"),
            f"--dbname={_libpq_url(database)}",
            str(file),
        )
    except StorageError:
        if viewed:
            with database.begin() as connection:
                create_views(connection)
        raise
    newer = [table for table in Base.metadata.sorted_tables if f" {table.name} " not in listed]
    with database.begin() as connection:
        Base.metadata.drop_all(connection, newer)


def _require_backup(file: Path, header: bytes) -> None:
    try:
        with file.open("rb") as opened:
            found = opened.read(len(header))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    if found != header:
        raise InputError(
            f"{file} is not a backup of this kind of database; give a file that `forewatch db backup` wrote"
        )


def _require_free(database: Database, replace: bool) -> None:
    if not replace and database.current() is not None:
        raise StorageError(f"{database} has tables; --replace deletes what it has now")
    if database.dialect == "sqlite":
        return  # the lock of the file excludes other owners
    with database.read() as connection:
        others = connection.execute(_OTHERS).scalar_one()
    if others:
        raise StorageError(
            f"{database} is in use by {others} connections of forewatch; stop the daemons and `serve`"
        )


def _copy_sqlite(source: Path, target: Path) -> None:
    try:
        with (
            sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True) as reading,
            sqlite3.connect(target) as writing,
        ):
            reading.backup(writing)
        # A copy of a file in WAL mode would ask for files beside it.
        writing.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise StorageError(f"{source} cannot be copied: {error}") from None
    finally:
        reading.close()
        writing.close()


def _restore_sqlite(file: Path, target: Path) -> None:
    make_private_folder(target.parent)
    part = target.with_name(target.name + ".part")
    os.close(private_opener(str(part), os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    try:
        shutil.copyfile(file, part)
        with sqlite3.connect(part) as copied:
            verdict = copied.execute("PRAGMA quick_check").fetchone()[0]
        copied.close()
        if verdict != "ok":
            raise StorageError(f"{file} is damaged: {verdict}; use another backup")
        _empty_log(target)
        for name in ("-wal", "-shm"):
            target.with_name(target.name + name).unlink(missing_ok=True)
        part.replace(target)
        _synchronize(target.parent)
    except sqlite3.Error as error:
        raise StorageError(f"{file} is damaged: {error}; use another backup") from None
    finally:
        part.unlink(missing_ok=True)


def _empty_log(file: Path) -> None:
    """Move the write-ahead log into ``file``, so that it can be deleted at any time."""
    if not file.exists():
        return
    with suppress(sqlite3.Error):  # a damaged file is replaced as it is
        with sqlite3.connect(file) as opened:
            opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        opened.close()


def _run_postgres_tool(database: Database, tool: str, *arguments: str) -> str:
    """Run pg_dump or pg_restore, and return what it prints.

    The password goes by the environment, which other users cannot read.
    """
    program = shutil.which(tool)
    if program is None:
        raise NotInstalled(f"{tool} is not installed: install the client of PostgreSQL (postgresql-client)")
    environment = dict(os.environ)
    if database.url.password is not None:
        environment["PGPASSWORD"] = str(database.url.password)
    command = [program, *arguments]
    if tool == "pg_dump":
        command.append(f"--dbname={_libpq_url(database)}")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = hide_secrets(done.stderr.strip().partition("\n")[0] or f"exit code {done.returncode}")
        raise StorageError(f"{database}: {reason}")
    return done.stdout


def _libpq_url(database: Database) -> str:
    return database.url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)


def _synchronize(path: Path) -> None:
    """Write a file or folder to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
