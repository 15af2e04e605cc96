"""What the engine's eyes learn, on its way into the database: the loop hands it over, the background writes
it. Of one thing only the newest counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from sqlalchemy import Connection

from pipeline.core.errors import StorageUnavailable
from storage.sql.database import Database

Write = Callable[[Connection], None]


class WriteBehind:
    """Bounded by what it is about: one write a key."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[Hashable, Write] = {}
        self._lock = threading.Lock()

    def put(self, key: Hashable, write: Write) -> None:
        """Have ``write`` done soon, instead of an earlier one of the same key."""
        with self._lock:
            self._waiting[key] = write

    def flush(self) -> None:
        """Write what waits, in one transaction.

        Raises StorageUnavailable, and then it goes on waiting; what else a write raises, it would raise
        again.
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
