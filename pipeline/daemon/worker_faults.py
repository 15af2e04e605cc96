"""Faults of streams whose worker process died and is started again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from pipeline.config.schema import Config
from pipeline.core.errors import ForewatchError
from pipeline.core.types import FaultKind
from pipeline.database import database_of
from storage.sql.database import Database

if TYPE_CHECKING:
    from pipeline.engine.fault_log import FaultLog

log = structlog.get_logger(__name__)

#: Interval of writing, and of renewing the leases.
INTERVAL_SECONDS = 1.0
SYNCHRONISE_INTERVALS = 5


class _Uncounted:
    """Metrics of faults that the supervisor counts by worker."""

    def fault_opened(self, kind: str) -> None: ...

    def fault_closed(self, kind: str) -> None: ...


class WorkerFaults:
    """Faults of the kind ``worker_died``.

    They are written in a thread, because the database may be away. The loop says what is the case with
    ``set_dead``; the thread makes the table agree.
    """

    def __init__(self, config: Config) -> None:
        """Take the config; ``start`` starts the thread."""
        self._config = config
        self._dead = ""
        self._changed = threading.Event()
        self._stopping = False
        self._logs: dict[str, FaultLog] = {}
        self._thread = threading.Thread(target=self._run, name="worker faults", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def use_config(self, config: Config) -> None:
        """Continue with another config."""
        self._config = config

    def set_dead(self, message: str) -> None:
        """Have a fault open with this message; an empty one ends it."""
        if message != self._dead:
            self._dead = message
            self._changed.set()

    def stop(self, timeout: float = 10.0) -> None:
        """End the faults and the thread; may be called twice."""
        self._stopping = True
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        database = None
        turns = 0
        while not self._stopping:
            self._changed.wait(INTERVAL_SECONDS)
            self._changed.clear()
            turns += 1
            try:
                if database is None and self._dead:
                    database = database_of(self._config)
                if database is not None:
                    self._update(database, turns % SYNCHRONISE_INTERVALS == 0)
            except ForewatchError as error:
                log.warning("cannot store that a worker died; trying again", error=str(error))
        if database is not None:
            for faults in self._logs.values():
                faults.end_all()
            database.close()

    def _update(self, database: Database, synchronise: bool) -> None:
        from pipeline.engine.fault_log import FaultLog  # loads the detectors, which no worker's death needs

        message = self._dead
        for name in self._config.streams:
            if name not in self._logs:
                self._logs[name] = FaultLog(name, database, _Uncounted())
            if message:
                self._logs[name].open(FaultKind.WORKER_DIED, message)
            else:
                self._logs[name].close(FaultKind.WORKER_DIED)
        for name, faults in list(self._logs.items()):
            if name not in self._config.streams:
                faults.end_all()
                del self._logs[name]
            elif synchronise:
                faults.synchronise()
