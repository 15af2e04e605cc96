"""The terminal of the demo: explained anomalies, and keys."""

from __future__ import annotations

import select
import sys
import threading
from collections.abc import Callable
from uuid import UUID

from pipeline.config.schema import Config
from pipeline.core.errors import StorageError
from pipeline.core.types import Severity
from pipeline.services.explain import describe_anomaly
from storage.results import anomalies
from storage.sql.database import Database


class Watcher:
    """Prints each anomaly of severity warning or above, read from the database."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._seen: set[UUID] = set()
        self.shown = 0

    def run(self, stop: threading.Event) -> None:
        """Check every quarter of a second until ``stop`` is set."""
        database = Database(self._config.database)
        try:
            while not stop.wait(0.25):
                try:
                    with database.read() as connection:
                        found = anomalies.query(connection, severity=Severity.WARNING, limit=50)
                except StorageError:
                    continue  # The daemon reports the state of the database.
                for anomaly in reversed(found):
                    if anomaly.id not in self._seen:
                        self._seen.add(anomaly.id)
                        self.shown += 1
                        stream = self._config.streams[anomaly.stream]
                        self._say(describe_anomaly(anomaly, stream.alerts.units))
        finally:
            database.close()


class Keys:
    """Keys of the demo: i injects a fault, q quits. Without a terminal they are off."""

    def __init__(self, inject: Callable[[], None], quit_: Callable[[], None]) -> None:
        self._actions = {"i": inject, "q": quit_}

    def run(self, stop: threading.Event) -> None:
        """Read keys until ``stop`` is set."""
        if not sys.stdin.isatty():
            return
        import termios
        import tty

        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        try:
            while not stop.is_set():
                if select.select([sys.stdin], [], [], 0.2)[0]:
                    self._actions.get(sys.stdin.read(1), lambda: None)()
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
