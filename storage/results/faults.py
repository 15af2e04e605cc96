"""Pipeline faults: opened once while they last, closed when they end."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, select, update

from pipeline.core.types import Fault, FaultKind, Partition
from storage.sql.column_types import insert
from storage.sql.damaged_rows import read_rows
from storage.sql.statements import Bounds, StreamChoice, of_streams, page_of, where_given
from storage.tables.stream import FaultRow

_WHOLE_STREAM = Partition("", -1)


def save(connection: Connection, fault: Fault) -> None:
    """Open ``fault``, or close it if it has an end.

    It is idempotent: a fault that its owner has open is not opened again.
    """
    if fault.ended_ns is not None and close(
        connection, fault.stream, fault.kind, fault.partition, fault.ended_ns, fault.owner
    ):
        return
    partition = fault.partition or _WHOLE_STREAM
    values = {
        "stream": fault.stream,
        "kind": fault.kind.value,
        "topic": partition.topic,
        "partition": partition.number,
        "message": fault.message,
        "detail": fault.detail,
        "started_ns": fault.started_ns,
        "ended_ns": fault.ended_ns,
        "owner": fault.owner,
        "partitions": _listed(fault.partitions),
    }
    connection.execute(insert(connection, FaultRow).values(values).on_conflict_do_nothing())


def close(
    connection: Connection,
    stream: str,
    kind: FaultKind,
    partition: Partition | None,
    ended_ns: int,
    owner: str = "",
) -> bool:
    """End the open faults of this kind that belong to ``owner`` or to no process.

    Args:
        connection: A transaction.
        stream: The stream.
        kind: Kind of the fault.
        partition: The partition; None for a fault of the whole stream.
        ended_ns: End of the fault, ns since the epoch.
        owner: Owner whose fault is ended.

    Returns:
        False if none is open.
    """
    statement = (
        update(FaultRow)
        .where(*_is(stream, kind, partition), FaultRow.ended_ns.is_(None), FaultRow.owner.in_(("", owner)))
        .values(ended_ns=ended_ns)
    )
    return connection.execute(statement).rowcount > 0


def resolve(connection: Connection, stream: str, partition: Partition, ended_ns: int, owner: str = "") -> int:
    """End every open fault of a partition that ``owner`` reads from now on, and return their number.

    Faults of the whole stream that other owners have open affect the partition no longer.

    Args:
        connection: A transaction.
        stream: Name of the stream.
        partition: The partition.
        ended_ns: Time of the end.
        owner: Process that reads the partition.
    """
    here = (
        FaultRow.stream == stream,
        FaultRow.topic == partition.topic,
        FaultRow.partition == partition.number,
        FaultRow.ended_ns.is_(None),
    )
    for fault in query(connection, stream=stream, open_only=True):
        if fault.partitions is not None and partition in fault.partitions and fault.owner != owner:
            set_partitions(connection, fault, [p for p in fault.partitions if p != partition])
    return connection.execute(update(FaultRow).where(*here).values(ended_ns=ended_ns)).rowcount


def set_partitions(connection: Connection, fault: Fault, partitions: list[Partition]) -> None:
    """Overwrite the partitions that an open fault of the whole stream affects."""
    which = (*_is(fault.stream, fault.kind, fault.partition), FaultRow.owner == fault.owner)
    connection.execute(
        update(FaultRow).where(*which, FaultRow.ended_ns.is_(None)).values(partitions=_listed(partitions))
    )


def query(
    connection: Connection,
    *,
    stream: StreamChoice = None,
    open_only: bool = False,
    since_ns: int | None = None,
    limit: int | None = None,
) -> list[Fault]:
    """Return faults by start, newest first."""
    return page(connection, Bounds(stream, since_ns, limit=limit), open_only=open_only)


def page(connection: Connection, bounds: Bounds, *, open_only: bool = False) -> list[Fault]:
    """Return a part of the faults; ``bounds.after`` is ``order_of`` a fault."""
    by_start = ((FaultRow.started_ns, True), (FaultRow.stream, False), (FaultRow.kind, False))
    place = ((FaultRow.topic, False), (FaultRow.partition, False), (FaultRow.owner, False))
    statement = where_given(
        page_of(select(*FaultRow.__table__.columns), (*by_start, *place), bounds.after, bounds.limit),
        (bounds.stream, of_streams(FaultRow.stream, bounds.stream)),
        (open_only or None, FaultRow.ended_ns.is_(None)),
        (bounds.since_ns, FaultRow.started_ns >= (bounds.since_ns or 0)),
        (bounds.until_ns, FaultRow.started_ns < (bounds.until_ns or 0)),
    )
    return read_rows(connection, statement, FaultRow.id, _fault)


def order_of(fault: Fault) -> tuple[int, str, str, str, int, str]:
    """Return the place of a fault in the order of ``query``."""
    topic, number = fault.partition or _WHOLE_STREAM
    return fault.started_ns, fault.stream, fault.kind.value, topic, number, fault.owner


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` faults that ended before ``before_ns``, and return their number."""
    old = (
        select(FaultRow.id).where(FaultRow.started_ns < before_ns, FaultRow.ended_ns < before_ns).limit(limit)
    )
    return connection.execute(delete(FaultRow).where(FaultRow.id.in_(old))).rowcount


def _is(stream: str, kind: FaultKind, partition: Partition | None) -> tuple[ColumnElement[bool], ...]:
    topic, number = partition or _WHOLE_STREAM
    return (
        FaultRow.stream == stream,
        FaultRow.kind == kind.value,
        FaultRow.topic == topic,
        FaultRow.partition == number,
    )


def _fault(row: Row[Any]) -> Fault:
    partition = Partition(row.topic, row.partition)
    return Fault(
        row.stream,
        FaultKind(row.kind),
        row.message,
        row.started_ns,
        None if partition == _WHOLE_STREAM else partition,
        row.ended_ns,
        row.detail,
        row.owner,
        None if row.partitions is None else [Partition(*one) for one in row.partitions],
    )


def _listed(partitions: list[Partition] | None) -> list[list[Any]] | None:
    return None if partitions is None else [[p.topic, p.number] for p in sorted(partitions)]
