"""The database that a config names."""

from __future__ import annotations

from pipeline.config import Config
from storage.session import Database


def database_of(config: Config, *, exclusive: bool = False) -> Database:
    """Its tables are as they are. ``exclusive`` for a process that owns partitions. Raises ConfigError (also for a missing secret) and StorageError."""
    password = config.database_password.reveal().get_secret_value() if config.database_password is not None else None
    return Database(config.database, password, exclusive=exclusive)
