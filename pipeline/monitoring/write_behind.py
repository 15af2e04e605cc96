"""Deferred writes of the monitors' state, off the loop.

The loop hands a write over, the background executes it. Of each key only the newest write counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from sqlalchemy import Connection

from pipeline.core.errors import StorageUnavailable
from storage.sql.database import Database

Write = Callable[[Connection], None]


class WriteBehind:
    """Pending writes, at most one for each key."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[Hashable, Write] = {}
        self._lock = threading.Lock()

    def put(self, key: Hashable, write: Write) -> None:
        """Replace the pending write of ``key``."""
        with self._lock:
            self._waiting[key] = write

    def flush(self) -> None:
        """Execute the pending writes in one transaction.

        Raises StorageUnavailable; the writes then stay pending. Other errors of a write are raised, and the
        write is dropped.
        """
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        try:
            with self._database.begin() as connection:
                for write in waiting.values():
                    write(connection)
        except StorageUnavailable:
            with self._lock:
                self._waiting = waiting | self._waiting
            raise
