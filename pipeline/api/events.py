"""Server-sent events: one thread looks for changes, all pages share them.

database ── one cheap query every half second ──► version number ──► event ``change`` to every page
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

from sqlalchemy import func, select

from pipeline.core.errors import StorageError
from storage.sql.database import Database
from storage.tables.alerting import AlertRow, DeliveryRow
from storage.tables.stream import AnomalyRow, FaultRow, PositionRow

CHECK_SECONDS = 0.5
#: Positions change with every commit; a page needs no more than this.
POSITION_SECONDS = 5.0
HEARTBEAT_SECONDS = 10.0
MAX_LISTENERS = 200


class ChangeMonitor:
    """Number that grows when anomalies, alerts, faults or deliveries change.

    The thread runs only while a page is open.
    """

    def __init__(self, database: Database) -> None:
        """Watch ``database`` once a page listens."""
        self._database = database
        self._lock = threading.Lock()
        self._listeners = 0
        self._version = 0
        self._stopping = False
        self._seen: tuple[object, ...] | None = None
        self._position_at = 0.0
        self._positions: object = None

    @property
    def full(self) -> bool:
        """True if no further page can listen."""
        return self._listeners >= MAX_LISTENERS

    def stop(self) -> None:
        """End the thread and all streams of events."""
        self._stopping = True

    async def events(self) -> AsyncIterator[bytes]:
        """Yield the events of one page until it leaves."""
        self._join()
        try:
            yield b"retry: 2000\nevent: ready\ndata: {}\n\n"
            last, beat = self._version, time.monotonic()
            while not self._stopping:
                await asyncio.sleep(CHECK_SECONDS / 2)
                if self._version != last:
                    last, beat = self._version, time.monotonic()
                    yield f"id: {last}\nevent: change\ndata: {{}}\n\n".encode()
                elif time.monotonic() - beat > HEARTBEAT_SECONDS:
                    beat = time.monotonic()
                    yield b": alive\n\n"
        finally:
            with self._lock:
                self._listeners -= 1

    def _join(self) -> None:
        with self._lock:
            self._listeners += 1
            if self._listeners == 1:
                threading.Thread(target=self._run, name="dashboard events", daemon=True).start()

    def _run(self) -> None:
        while not self._stopping:
            with self._lock:
                if not self._listeners:
                    return
            try:
                seen = self._look()
            except StorageError as error:
                seen = (str(error),)
            if seen != self._seen:
                self._version += 1
                self._seen = seen
            time.sleep(CHECK_SECONDS)

    def _look(self) -> tuple[object, ...]:
        with self._database.read() as connection:
            columns = (
                select(func.max(AnomalyRow.updated_ns)).scalar_subquery(),
                select(func.max(FaultRow.id)).where(FaultRow.ended_ns.is_(None)).scalar_subquery(),
                select(func.max(AlertRow.created_ns)).scalar_subquery(),
                select(func.max(DeliveryRow.created_ns)).scalar_subquery(),
            )
            seen = tuple(connection.execute(select(*columns)).one())
            if time.monotonic() - self._position_at > POSITION_SECONDS:
                self._position_at = time.monotonic()
                self._positions = connection.scalar(select(func.sum(PositionRow.commits)))
        return (*seen, self._positions)
