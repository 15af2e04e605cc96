"""The database that a config names."""

from __future__ import annotations

from pipeline.config import Config
from pipeline.errors import ConfigError
from storage.session import Database


def open_database(config: Config, *, exclusive: bool = False) -> Database:
    """``exclusive`` for the process that owns partitions. Raises ConfigError (also for a missing secret) and StorageError."""
    try:
        password = config.database_password.reveal().get_secret_value() if config.database_password is not None else None
    except ValueError as error:
        raise ConfigError(f"database_password: {error} — set it, or name another one in the config") from None
    return Database(config.database, password, exclusive=exclusive)
