"""Faults of the pipeline itself: opened once while they last, kept until the database stores them."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from sqlalchemy import Connection

from pipeline.core.errors import SourceError, SourceUnavailable, StorageUnavailable
from pipeline.core.types import DeadLetter, Fault, FaultKind, Partition
from pipeline.observability.metrics import StreamMetrics
from storage.results import faults
from storage.sql.database import Database

log = structlog.get_logger(__name__)

Identity = tuple[FaultKind, Partition | None]


class FaultLog:
    """Faults of one stream in this process.

    ``open`` and ``close`` may be called on every turn. Only changes are written.
    """

    def __init__(self, stream: str, database: Database, metrics: StreamMetrics) -> None:
        self.stream = stream
        self._metrics = metrics
        self._database = database
        self._open: dict[Identity, Fault] = {}
        self._closed: set[Identity] = set()  # closed in the database, too
        self._unwritten: list[Callable[[Connection], object]] = []

    @property
    def current(self) -> list[Fault]:
        return list(self._open.values())

    def open(
        self, kind: FaultKind, message: str, partition: Partition | None = None, **detail: object
    ) -> None:
        if (kind, partition) in self._open:
            return
        fault = Fault(self.stream, kind, message, time.time_ns(), partition, detail=dict(detail))
        self._open[kind, partition] = fault
        self._closed.discard((kind, partition))
        self._unwritten.append(lambda connection: faults.save(connection, fault))
        self._metrics.fault_opened(kind.value)
        log.error(
            "fault", stream=self.stream, kind=kind.value, partition=str(partition or ""), message=message
        )
        self.write()

    def open_for(self, error: StorageUnavailable | SourceError) -> None:
        """Open the fault of a database or source that fails with ``error``."""
        if isinstance(error, StorageUnavailable):
            self.open(FaultKind.DATABASE_DOWN, str(error))
        else:
            kind = FaultKind.SOURCE_DOWN if isinstance(error, SourceUnavailable) else FaultKind.STUCK_STREAM
            self.open(kind, str(error), error.partition if kind is FaultKind.STUCK_STREAM else None)

    def broken(self, partition: Partition, last: DeadLetter, next_offset: int) -> None:
        """Open the fault of a partition with too many undecodable records; ``last`` is one of them."""
        self.open(
            FaultKind.SCHEMA_BREAK,
            f"{partition}: too many records cannot be decoded (last: offset {last.offset}, {last.reason}: {last.detail}); reading is stopped at "
            f"offset {next_offset}. Correct the producer or the format, restart, then run: forewatch deadletters replay",
            partition,
        )

    def damaged(self, partition: Partition, message: str) -> None:
        """Open the fault of a stored state that is not used; the next snapshot of the partition ends it."""
        self.open(FaultKind.DAMAGED_STATE, message, partition)

    def close(self, kind: FaultKind, partition: Partition | None = None) -> None:
        """End a fault, also one that an earlier process opened."""
        if (kind, partition) in self._closed:
            return
        self._closed.add((kind, partition))
        now = time.time_ns()
        fault = self._open.pop((kind, partition), None)
        if fault is None:
            self._unwritten.append(
                lambda connection: faults.close(connection, self.stream, kind, partition, now)
            )
        else:
            fault.ended_ns = now
            self._unwritten.append(lambda connection: faults.save(connection, fault))
            self._metrics.fault_closed(kind.value)
            log.info("fault ended", stream=self.stream, kind=kind.value, partition=str(partition or ""))
        self.write()

    def resolve(self, partition: Partition) -> None:
        """End all faults of a partition that is read again."""
        for kind, where in list(self._open):
            if where == partition:
                self.close(kind, partition)
        now = time.time_ns()
        self._unwritten.append(lambda connection: faults.resolve(connection, self.stream, partition, now))
        self.write()

    def write(self) -> None:
        """Write the pending changes; they are kept while the database is unavailable."""
        if not self._unwritten:
            return
        try:
            with self._database.begin() as connection:
                for change in self._unwritten:
                    change(connection)
        except StorageUnavailable:
            return
        self._unwritten.clear()
