"""The database of a config."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config.schema import Config
from storage.sql.database import Database


def database_of(config: Config, *, exclusive: bool = False) -> Database:
    """Connect to the database of a config without touching its schema.

    ``exclusive`` is for a process that owns partitions.

    Raises:
        ConfigError: The address cannot be used, or the secret is missing.
        StorageError: The database cannot be used.
    """
    password = (
        config.database_password.reveal().get_secret_value() if config.database_password is not None else None
    )
    return Database(config.database, password, exclusive=exclusive)


@contextmanager
def open_database(config: Config) -> Iterator[Database]:
    """Open the database of a config for a process that writes.

    The schema is created if there is none.

    Raises:
        StorageError: The schema has another version, or the database cannot be used.
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
    """Return the owner of this process in the positions table: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"
