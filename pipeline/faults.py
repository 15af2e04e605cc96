"""Pipeline faults: something is wrong with the watching. Kept until the database takes them, opened once while they last."""

from __future__ import annotations

import time

import structlog

from pipeline.errors import StorageUnavailable
from pipeline.metrics import StreamMetrics
from pipeline.records import Fault, FaultKind, Partition
from storage import faults
from storage.session import Database

log = structlog.get_logger(__name__)

Identity = tuple[FaultKind, Partition | None]


class FaultLog:
    """The faults of one stream in this process. ``open`` and ``close`` may be called on every turn; only changes are written."""

    def __init__(self, stream: str, database: Database, metrics: StreamMetrics) -> None:
        self.stream = stream
        self._metrics = metrics
        self._database = database
        self._open: dict[Identity, Fault] = {}
        self._unwritten: list[Fault] = []

    @property
    def current(self) -> list[Fault]:
        return list(self._open.values())

    def open(self, kind: FaultKind, message: str, partition: Partition | None = None, **detail: object) -> None:
        if (kind, partition) in self._open:
            return
        fault = Fault(self.stream, kind, message, time.time_ns(), partition, detail=dict(detail))
        self._open[kind, partition] = fault
        self._unwritten.append(fault)
        self._metrics.fault_opened(kind.value)
        log.error("fault", stream=self.stream, kind=kind.value, partition=str(partition or ""), message=message)
        self.write()

    def close(self, kind: FaultKind, partition: Partition | None = None) -> None:
        fault = self._open.pop((kind, partition), None)
        if fault is None:
            return
        fault.ended_ns = time.time_ns()
        self._unwritten.append(fault)
        self._metrics.fault_closed(kind.value)
        log.info("fault over", stream=self.stream, kind=kind.value, partition=str(partition or ""))
        self.write()

    def write(self) -> None:
        """Write what is not written yet; a database that is away is no reason to stop: the faults wait here, and they are few."""
        if not self._unwritten:
            return
        try:
            with self._database.begin() as connection:
                for fault in self._unwritten:
                    faults.save(connection, fault)
        except StorageUnavailable:
            return
        self._unwritten.clear()
