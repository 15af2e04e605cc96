"""The database that a config names."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config.schema import Config
from storage.sql.database import Database


def database_of(config: Config, *, exclusive: bool = False) -> Database:
    """Its tables are as they are.

    ``exclusive`` for a process that owns partitions. Raises ConfigError (also for a missing secret) and
    StorageError.
    """
    password = (
        config.database_password.reveal().get_secret_value() if config.database_password is not None else None
    )
    return Database(config.database, password, exclusive=exclusive)


@contextmanager
def open_database(config: Config) -> Iterator[Database]:
    """The configured database for a process that writes: schema made if there is none, refused if it is
    another version's.

    Raises StorageError.
    """
    database = database_of(config, exclusive=True)
    try:
        if database.current() is None:
            database.upgrade()
        database.require_head()
        yield database
    finally:
        database.close()


def owner_name() -> str:
    """Who we are in the positions table: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"
