"""The database of a config."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import structlog

from pipeline.config.schema import Config
from pipeline.core.errors import ForewatchError, StorageRefused, StorageUnavailable
from storage.sql.database import Database

log = structlog.get_logger(__name__)

T = TypeVar("T")


class StoppedWhileStarting(ForewatchError):
    """The process was asked to stop before its database answered. It ends without an error."""

    exit_code = 0


RETRY_SECONDS = 1.0
#: Interval of log lines about a database that still does not answer.
REPORT_SECONDS = 30.0


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


@contextmanager
def open_database_when_available(
    config: Config, stopping: threading.Event, on_wait: Callable[[str], None] = lambda reason: None
) -> Iterator[Database]:
    """Open the database for a process that writes, and wait while it does not answer.

    Args:
        config: The configuration.
        stopping: Ends the wait.
        on_wait: Receives the reason after each failed attempt.

    Raises:
        StorageError: The schema has another version, or the database refuses the connection.
        StoppedWhileStarting: ``stopping`` was set before the database answered.
    """
    with ExitStack() as stack:
        yield retry_until_available(lambda: stack.enter_context(open_database(config)), stopping, on_wait)


def retry_until_available(
    action: Callable[[], T], stopping: threading.Event, on_wait: Callable[[str], None]
) -> T:
    """Repeat ``action`` until the database answers, and return its result.

    Raises:
        StorageRefused: The database refuses the connection; another attempt would fail, too.
        StoppedWhileStarting: ``stopping`` was set before the database answered.
    """
    report_at, waited = time.monotonic(), False
    while not stopping.is_set():
        try:
            done = action()
        except StorageRefused:
            raise
        except StorageUnavailable as error:
            on_wait(str(error))
            if time.monotonic() >= report_at:
                log.warning("the database does not answer; waiting for it", error=str(error))
                report_at = time.monotonic() + REPORT_SECONDS
            waited = True
            stopping.wait(RETRY_SECONDS)
        else:
            if waited:
                log.info("the database answers")
            return done
    raise StoppedWhileStarting("stopped while starting")


def owner_name() -> str:
    """Return the owner of this process in the positions table: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"
