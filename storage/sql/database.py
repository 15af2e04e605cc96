"""Database connections, transactions, and the meaning of failures.

SQLite runs in WAL with ``synchronous=FULL``. NORMAL would survive ``kill -9`` too, because the log is in the
kernel's cache. But a power cut could undo the last commits, and some effects of a commit cannot be repeated:
a webhook that was sent, an operator's label, a reading of this machine's own telemetry.
FULL costs one fsync a batch.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pipeline.core.errors import ConfigError, StorageError, StorageRefused, StorageUnavailable
from pipeline.core.private_files import make_private_folder, private_opener
from pipeline.core.secret_text import hide_in_urls, hide_secrets
from storage.sql.file_version import FileVersion
from storage.sql.json_texts import read_json
from storage.sql.process_lock import ProcessLock

#: Waiting for another writer of the same rows (PostgreSQL) or of the same file (SQLite), in seconds.
LOCK_TIMEOUT_SECONDS = 5.0

_POSTGRES_OPTIONS = {
    "lock_timeout": f"{LOCK_TIMEOUT_SECONDS:.0f}s",
    "statement_timeout": "60s",
    # A process frozen inside its transaction must not keep its row locks for good, even if no successor
    # comes.
    "idle_in_transaction_session_timeout": "60s",
}
_POSTGRES_ARGS: dict[str, Any] = {
    "application_name": "forewatch",
    "connect_timeout": 5,
    # A server that vanished without a word is noticed in 20 s instead of the kernel's quarter of an hour.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
#: SQLSTATE of an insufficient privilege, and of a search path without a schema.
_NOT_PERMITTED = frozenset({"42501", "3F000"})
#: SQLSTATE of a write to a standby, which a failover makes the primary.
_READ_ONLY = "25006"
#: Answers of a server, libpq and SQLite that another attempt does not change. libpq does not give the SQLSTATE of
#: a failed connection, so the text decides. An unknown text counts as a database that does not answer.
_REFUSED = re.compile(
    r"(role|database|file) .* does not exist|authentication failed|no password supplied|not permitted to log in"
    r"|no pg_hba\.conf entry|permission denied|server does not support SSL|certificate verify failed"
    r"|does not match host name|valid client certificate|alert unknown ca|has group or world access"
    r"|could not (load|read|open) (private key|certificate|root certificate) file"
    r"|invalid (sslmode|connection option|port)|unable to open database file|readonly database"
)


class CommitUnknown(StorageUnavailable):
    """The connection broke during COMMIT: ``positions.confirm`` tells the outcome."""


class RowLocked(StorageUnavailable):
    """Another transaction kept a row locked for longer than the lock timeout."""


class Database:
    """Database that threads may share.

    ``exclusive`` is for processes that own partitions: SQLite allows one of them (StorageError otherwise).
    Commands that only read, or write single rows, run beside it without.
    """

    def __init__(self, url: str, password: str | None = None, *, exclusive: bool = False) -> None:
        self.url = _checked(url, password)
        self.dialect = self.url.get_backend_name()
        self._file = Path(self.url.database or "") if self.dialect == "sqlite" else None
        self._lock = ProcessLock(self._file) if exclusive and self._file is not None else None
        if self._lock is not None:
            self._lock.acquire()
        self._engine = _sqlite(self._file) if self._file is not None else _postgres(self.url)
        self._version = FileVersion(self._file) if self._file is not None else None
        self._writing = threading.Lock()
        self._file_id: tuple[int, int] | None = None  # device and inode of a SQLite file

    def __str__(self) -> str:
        return hide_in_urls(self.url.render_as_string(hide_password=True))

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a writing transaction: committed at the end of the block, rolled back on an exception.

        Raises StorageUnavailable when the database does not answer (nothing is committed), CommitUnknown when
        the reply to COMMIT was lost, StorageError when another attempt would fail, too.
        """
        with self._turn(), self._connect() as connection, connection.begin() as transaction:
            yield connection
            try:
                transaction.commit()
            except DBAPIError as error:
                problem = "" if self._file is not None else "no answer to COMMIT: "
                raise CommitUnknown(f"{self}: {problem}{_first_line(error)}") from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open one consistent view, without a write lock. Raises as ``begin`` does."""
        with self._connect() as connection:
            if self._file is None:
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            yield connection.execution_options(reading=True)

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """Commit each statement by itself, so that a process that freezes in between holds no lock."""
        if self._file is not None:
            # SQLite has no server: the process that commits is this one.
            with self.begin() as connection:
                yield connection
            return
        with self._connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def version(self) -> str | None:
        """Return a text that each commit changes, None if it is not known.

        What was read from the database after a version is still true while the version is the same.
        """
        try:
            if self._file is None:
                with self._connect() as connection:
                    return str(connection.exec_driver_sql("SELECT pg_current_snapshot()").scalar_one())
            assert self._version is not None
            self._look_at_file(self._file)
            return self._version.read()
        except (StorageError, DBAPIError, sqlite3.Error):
            return None

    def upgrade(self) -> None:
        """Create the schema or bring it to this version.

        Raises StorageError if a newer forewatch has written it.
        """
        from storage.sql import migrate

        if self._file is not None:
            try:
                make_private_folder(self._file.parent)
                # SQLite gives the files -wal and -shm the mode of the database.
                os.close(private_opener(str(self._file), os.O_RDWR | os.O_CREAT))
            except OSError as error:
                raise StorageError(f"cannot create the database {self._file}: {error.strerror}") from None
        with self.begin() as connection:
            migrate.upgrade(connection)

    def current(self) -> str | None:
        """Revision of the schema in the database, None before the first ``upgrade``."""
        from storage.sql import migrate

        if self._file is not None and not self._file.exists():
            return None
        with self.read() as connection:
            return migrate.current(connection)

    def head(self) -> str:
        """Revision of the schema that this code works with."""
        from storage.sql import migrate

        return migrate.head()

    def require_head(self) -> None:
        """Raise StorageError, with what to do, unless the schema is the one this code works with."""
        from storage.sql import migrate

        migrate.require_head(self.current(), str(self))

    def close(self) -> None:
        """Close every connection and release the lock. Calling it twice is allowed."""
        self._dispose()
        if self._lock is not None:
            self._lock.release()

    def _dispose(self) -> None:
        self._engine.dispose()
        if self._version is not None:
            self._version.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let the threads of this process write to SQLite in turn.

        SQLite itself waits for its lock by sleeping, longer and longer, so a thread that writes rarely starves.
        """
        if self._file is None:
            yield
            return
        if not self._writing.acquire(timeout=LOCK_TIMEOUT_SECONDS):
            raise StorageUnavailable(
                f"{self}: another thread has been writing for {LOCK_TIMEOUT_SECONDS:.0f} s"
            )
        try:
            yield
        finally:
            self._writing.release()

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        if self._file is not None:
            self._look_at_file(self._file)
        try:
            with self._engine.connect() as connection:
                yield connection
        except PoolTimeout as error:
            raise StorageUnavailable(f"{self}: every connection is busy") from error
        except DBAPIError as error:
            raise self._explained(error) from error

    def _look_at_file(self, file: Path) -> None:
        """Notice a SQLite file that is gone, or that another one replaced.

        One that was there before may come back: its disk was unmounted, or it is being restored.
        """
        try:
            status = os.stat(file)
        except FileNotFoundError:
            if self._file_id is None:
                raise StorageError(
                    f"there is no database {file} yet; forewatch run CONFIG creates it, as does: forewatch "
                    "db upgrade -c CONFIG"
                ) from None
            raise StorageUnavailable(f"{self}: the file is gone; put it back") from None
        except OSError as error:
            raise StorageUnavailable(f"{self}: {error.strerror}") from None
        found = (status.st_dev, status.st_ino)
        if self._file_id not in (None, found):
            self._dispose()  # its connections have the former file
        self._file_id = found

    def _explained(self, error: DBAPIError) -> Exception:
        reason = _first_line(error)
        if _is_missing_table(error):
            return StorageError(
                f"{self} does not have the tables of this version ({reason}); run: forewatch db upgrade"
            )
        sqlstate = getattr(error.orig, "sqlstate", None)
        if sqlstate == "55P03":
            return RowLocked(f"{self}: {reason}")
        if sqlstate in _NOT_PERMITTED:
            return StorageError(
                f"{self}: {reason}; grant the role of the database URL the right, or use another role"
            )
        if sqlstate == _READ_ONLY:
            return StorageUnavailable(f"{self}: {reason}")
        if sqlstate is None and isinstance(error, OperationalError) and _REFUSED.search(reason):
            return StorageRefused(f"{self}: {reason}")
        if error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError)):
            return StorageUnavailable(f"{self}: {reason}")
        if type(error) is DatabaseError:  # SQLite: not a database, or malformed
            return StorageError(f"{self}: {reason}; restore it from a backup or choose another file")
        return error


def _checked(text: str, password: str | None) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        raise ConfigError(
            "database: not a URL; write sqlite:///file.db or postgresql+psycopg://user@host/name"
        ) from None
    if url.drivername in {"postgresql", "postgres"}:
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in {"sqlite", "postgresql+psycopg"}:
        raise ConfigError(f"database: {url.drivername} is not supported; use sqlite or postgresql+psycopg")
    if url.drivername == "sqlite" and url.database in {None, "", ":memory:"}:
        raise ConfigError("database: SQLite needs a file, for example sqlite:///forewatch.db")
    return url if password is None else url.set(password=password)


def _sqlite(file: Path) -> Engine:
    # mode=rw: a misspelt path must not quietly become a new, empty database.
    url = URL.create("sqlite", database=file.absolute().as_uri(), query={"mode": "rw", "uri": "true"})
    engine = create_engine(
        url,
        connect_args={"isolation_level": None, "timeout": LOCK_TIMEOUT_SECONDS},
        json_deserializer=read_json,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "journal_size_limit=67108864",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later could not get the write lock any more: writers ask
        # for it at once.
        connection.exec_driver_sql(
            "BEGIN" if connection.get_execution_options().get("reading") else "BEGIN IMMEDIATE"
        )

    return engine


def _postgres(url: URL) -> Engine:
    options = " ".join(f"-c {name}={value}" for name, value in _POSTGRES_OPTIONS.items())
    given = url.query.get("options", "")
    arguments = {name: value for name, value in _POSTGRES_ARGS.items() if name not in url.query}
    return create_engine(
        url,
        connect_args=arguments | {"options": f"{options} {given}".strip()},
        pool_size=4,
        max_overflow=4,
        pool_timeout=10,
        json_deserializer=read_json,
        pool_pre_ping=True,  # after a restart of the server every pooled connection is dead
        hide_parameters=True,
    )


def _first_line(error: DBAPIError) -> str:
    """Return the driver's own message, and the remedy of a full disk.

    It has no SQL, parameters or password.
    """
    text = hide_secrets(str(error.orig).strip().partition("\n")[0])
    return f"{text}; free some space there" if text.endswith("disk is full") else text


def _is_missing_table(error: DBAPIError) -> bool:
    if isinstance(error, ProgrammingError):
        return getattr(error.orig, "sqlstate", None) in {"42P01", "42703"}
    return isinstance(error, OperationalError) and str(error.orig).startswith(
        ("no such table", "no such column")
    )
