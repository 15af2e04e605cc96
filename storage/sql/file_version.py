"""Version of a SQLite file, which each commit of others changes."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path


class FileVersion:
    """Connection of its own that only asks whether others have changed the file."""

    def __init__(self, file: Path) -> None:
        """Take the file; it is opened with the first question."""
        self._uri = f"{file.absolute().as_uri()}?mode=rw"
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened = 0

    def read(self) -> str:
        """Return the version.

        Raises:
            sqlite3.Error: The file cannot be read.
        """
        with self._lock:
            if self._connection is None:
                self._connection = sqlite3.connect(self._uri, uri=True, check_same_thread=False)
                self._opened += 1
            [number] = self._connection.execute("PRAGMA data_version").fetchone()
            # The numbers of two connections cannot be compared.
            return f"{self._opened}-{number}"

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
