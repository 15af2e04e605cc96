"""Entries of the audit log about changed configs of a running daemon."""

from __future__ import annotations

import time

import structlog

from pipeline.config.schema import Config
from pipeline.core.errors import StorageError
from pipeline.database import owner_name
from storage.access import audit
from storage.access.audit import Actor, ActorKind, Change
from storage.sql.database import Database

log = structlog.get_logger(__name__)


def record_config_change(database: Database, before: Config, after: Config) -> None:
    """Write down the names of the keys and streams that changed, without values."""
    if before == after:
        return
    keys = [name for name in Config.model_fields if getattr(before, name) != getattr(after, name)]
    names = {*before.streams, *after.streams}
    streams = sorted(name for name in names if before.streams.get(name) != after.streams.get(name))
    detail = {"keys": keys, "streams": streams}
    change = Change("config.reload", str(after.file or "config"), None, detail)
    try:
        with database.begin() as connection:
            audit.add(connection, Actor(owner_name(), ActorKind.DAEMON), change, time.time_ns())
    except StorageError as error:
        log.warning("the change of the config is not in the audit log", error=str(error))
