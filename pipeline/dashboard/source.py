"""Database, recorded history and config that the pages read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.schema import Config
from pipeline.database import database_of
from storage.history.history import HistoryReader
from storage.sql.database import Database


@dataclass(slots=True)
class Meter:
    """Rate of a counter between two readings that are at least a second apart."""

    count: int | None = None
    at: float = 0.0
    rate: float | None = None

    def update(self, count: int, now: float) -> float | None:
        """Return the count per second since the last reading; None after the first one."""
        if self.count is None or count < self.count:
            self.count, self.at, self.rate = count, now, None
        elif now - self.at >= 1.0:
            self.rate = (count - self.count) / (now - self.at)
            self.count, self.at = count, now
        return self.rate


@dataclass(slots=True)
class ViewSource:
    """Everything that a view reads. The connection of a running daemon is never used."""

    config: Config
    database: Database
    history: HistoryReader
    meter: Meter = field(default_factory=Meter)
    names: dict[str, frozenset[str]] = field(default_factory=dict)
    answers: dict[str, tuple[float, Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, config: Config) -> ViewSource:
        """Return the source of a config; it connects at the first read."""
        return cls(config, database_of(config), HistoryReader(config.history_path))

    def cached(self, key: str, seconds: float, make: Callable[[], Any]) -> Any:
        """Return an answer that is at most ``seconds`` old, shared by all pages."""
        with self.lock:
            found = self.answers.get(key)
            if found is None or time.monotonic() - found[0] > seconds:
                if len(self.answers) > 64:
                    self.answers.clear()
                found = self.answers[key] = (time.monotonic(), make())
            return found[1]

    def close(self) -> None:
        """Close the database."""
        self.database.close()
