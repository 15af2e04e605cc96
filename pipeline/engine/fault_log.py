"""Faults of the pipeline itself: opened once while they last, kept until the database stores them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol
from uuid import uuid4

import structlog
from sqlalchemy import Connection

from pipeline.core.errors import (
    InputError,
    OutputUnavailable,
    SourceError,
    SourceUnavailable,
    StorageUnavailable,
)
from pipeline.core.types import DeadLetter, Fault, FaultKind, Partition
from pipeline.database import owner_name
from storage.results import fault_leases, faults
from storage.results.fault_leases import FaultLeases
from storage.sql.database import Database

log = structlog.get_logger(__name__)

Identity = tuple[FaultKind, Partition | None]


class FaultMetrics(Protocol):
    """Metrics of faults that open and close."""

    def fault_opened(self, kind: str) -> None:
        """Count a fault that opens."""
        ...

    def fault_closed(self, kind: str) -> None:
        """Count a fault that ends."""
        ...


class FaultLog:
    """Faults of one stream in this process, which owns them: they end when it stops or dies.

    ``open`` and ``close`` may be called on every turn. Only changes are written. A fault of the whole stream
    affects the partitions that this process owns.
    """

    def __init__(
        self,
        stream: str,
        database: Database,
        metrics: FaultMetrics,
        *,
        owner: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Have no fault open.

        Args:
            stream: The stream.
            database: Keeps the faults.
            metrics: Counts them.
            owner: Name of the owner, different for every process and every start.
            monotonic: Clock of the leases, in seconds.
        """
        self.stream = stream
        self.owner = owner or f"{owner_name()}:{uuid4().hex[:8]}"
        self._metrics = metrics
        self._database = database
        self._leases = FaultLeases(alone=database.dialect == "sqlite", monotonic=monotonic)
        self._owned: set[Partition] = set()
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
        fault = Fault(
            self.stream,
            kind,
            message,
            time.time_ns(),
            partition,
            detail=dict(detail),
            owner=self.owner,
            partitions=sorted(self._owned) if partition is None else None,
        )
        self._open[kind, partition] = fault
        self._closed.discard((kind, partition))
        self._unwritten.append(lambda connection: faults.save(connection, fault))
        self._metrics.fault_opened(kind.value)
        log.error(
            "fault", stream=self.stream, kind=kind.value, partition=str(partition or ""), message=message
        )
        self.write()

    def open_for(self, error: StorageUnavailable | SourceError | InputError | OutputUnavailable) -> None:
        """Open the fault of a database, source or output that fails with ``error``."""
        if isinstance(error, StorageUnavailable):
            self.open(FaultKind.DATABASE_DOWN, str(error))
        elif isinstance(error, OutputUnavailable):
            self.open(FaultKind.OUTPUT_DOWN, str(error))
        else:
            kind = FaultKind.SOURCE_DOWN if isinstance(error, SourceUnavailable) else FaultKind.STUCK_STREAM
            partition = error.partition if isinstance(error, SourceError) else None
            self.open(kind, str(error), partition if kind is FaultKind.STUCK_STREAM else None)

    def broken(self, partition: Partition, last: DeadLetter, next_offset: int) -> None:
        """Open the fault of a partition with too many undecodable records; ``last`` is one of them."""
        self.open(
            FaultKind.SCHEMA_BREAK,
            f"{partition}: too many records cannot be decoded (last: offset {last.offset}, {last.reason}: {last.detail}); reading is stopped at "
            f"offset {next_offset}. Correct the producer or the format, restart, then run: forewatch deadletters replay",
            partition,
        )

    def series_limit(self, most: int, examples: Sequence[str | None]) -> None:
        """Open the fault of a stream with more series than its limit; ``examples`` are names of refused ones."""
        self.open(
            FaultKind.SERIES_LIMIT,
            f"stream {self.stream} has reached max_series ({most}): records of further series are not scored and "
            f"count as filtered, for example {', '.join(map(str, examples))}. If a label changes with every record, "
            f"remove it from the series of the format; otherwise raise max_series",
        )

    def new_codes(self, partition: Partition) -> None:
        """Open the fault of a partition with more new codes than may raise alarms."""
        self.open(
            FaultKind.NEW_CODES,
            f"{partition}: so many events have codes that the model has never seen that further new codes "
            "raise no alarm. If a code holds a number or a name, use `text` in place of `code` in the "
            "format, so that its template is the code; otherwise train a model that includes the new codes",
            partition,
        )

    def damaged(self, partition: Partition, message: str) -> None:
        """Open the fault of a stored state that is not used; the next snapshot of the partition ends it."""
        self.open(FaultKind.DAMAGED_STATE, message, partition)

    def close(self, kind: FaultKind, partition: Partition | None = None) -> None:
        """End a fault of this process, also one without an owner that an earlier version opened."""
        if (kind, partition) in self._closed:
            return
        self._closed.add((kind, partition))
        now = time.time_ns()
        fault = self._open.pop((kind, partition), None)
        if fault is None:
            self._unwritten.append(
                lambda connection: faults.close(connection, self.stream, kind, partition, now, self.owner)
            )
        else:
            fault.ended_ns = now
            self._unwritten.append(lambda connection: faults.save(connection, fault))
            self._metrics.fault_closed(kind.value)
            log.info("fault ended", stream=self.stream, kind=kind.value, partition=str(partition or ""))
        self.write()

    def resolve(self, partition: Partition) -> None:
        """End all faults of a partition that this process reads from now on, whoever opened them.

        The next ``write`` stores that, so that several partitions are one transaction.
        """
        self._owned.add(partition)
        self._close_partition(partition)
        now = time.time_ns()
        self._unwritten.append(
            lambda connection: faults.resolve(connection, self.stream, partition, now, self.owner)
        )

    def release(self, partition: Partition) -> None:
        """End the faults of a partition that this process gives up; its next owner opens its own."""
        self._owned.discard(partition)
        self._close_partition(partition)

    def end_all(self) -> None:
        """End every fault of this process, which stops."""
        for kind, partition in list(self._open):
            self.close(kind, partition)
        self.write()

    def synchronise(self) -> None:
        """Write pending changes, renew the leases, and compare the faults with those in the table.

        A fault of this process that another one ended is opened again. Rows without an owner (of an earlier
        version) end if this process knows that their fault is over, those of a dead owner in any case.
        """
        self.write()
        if self._unwritten:
            return
        try:
            with self._database.read() as connection:
                stored = faults.query(connection, stream=self.stream, open_only=True)
                expired = self._leases.expired(connection, stream=self.stream, me=self.owner)
            changes = self._differences(stored)
            if not (changes or expired or self._open):
                return
            with self._database.begin() as connection:
                for change in changes:
                    change(connection)
                if self._open:
                    fault_leases.beat(connection, self.stream, self.owner)
                fault_leases.end(connection, [id_ for id_, _ in expired], time.time_ns())
        except StorageUnavailable:
            return
        for owner in {owner for _, owner in expired}:
            log.warning("process ended; its faults are closed", stream=self.stream, owner=owner)

    def _differences(self, stored: Sequence[Fault]) -> list[Callable[[Connection], object]]:
        """Return the changes that make the table agree with this process."""
        now = time.time_ns()
        mine = {(f.kind, f.partition): f for f in stored if f.owner == self.owner}
        changes: list[Callable[[Connection], object]] = []
        for identity, fault in self._open.items():
            if fault.partition is None:
                fault.partitions = sorted(self._owned)
            if identity not in mine:
                # A new beginning: alerts that were resolved meanwhile are sent again.
                fault.started_ns = now
                changes.append(partial(faults.save, fault=fault))
            elif mine[identity].partitions != fault.partitions:
                changes.append(partial(faults.set_partitions, fault=fault, partitions=fault.partitions or []))
        over = [f for identity, f in mine.items() if identity not in self._open]
        over += [f for f in stored if not f.owner and self._is_over(f)]
        return changes + [partial(faults.save, fault=replace(fault, ended_ns=now)) for fault in over]

    def _is_over(self, fault: Fault) -> bool:
        """Return True if this process knows that a fault without an owner is over."""
        identity = (fault.kind, fault.partition)
        if identity in self._open:
            return False
        return identity in self._closed or (fault.partition is not None and fault.partition in self._owned)

    def _close_partition(self, partition: Partition) -> None:
        for kind, where in list(self._open):
            if where == partition:
                self.close(kind, partition)

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
