"""Late records: points older than the last scored one of their series."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from pipeline.core.types import LateRecord, Partition
from storage.tables.stream import LateRow


def add(connection: Connection, records: Sequence[LateRecord]) -> None:
    """Insert late records."""
    if not records:
        return
    now = time.time_ns()
    rows = [
        {
            "stream": record.stream,
            "topic": record.partition.topic,
            "partition": record.partition.number,
            "offset": record.offset,
            "series": record.series,
            "time_ns": record.time_ns,
            "values": record.values,
            "created_ns": now,
        }
        for record in records
    ]
    connection.execute(insert(LateRow), rows)


def query(
    connection: Connection,
    *,
    stream: str | None = None,
    series: str | None = None,
    since_ns: int | None = None,
    limit: int | None = None,
) -> list[LateRecord]:
    """Return late records, newest arrival first.

    Args:
        connection: A connection.
        stream: Name of the stream, None for all.
        series: Name of the series, None for all.
        since_ns: Earliest time of arrival.
        limit: Largest number of records.
    """
    statement = select(*LateRow.__table__.columns).order_by(LateRow.id.desc()).limit(limit)
    if stream is not None:
        statement = statement.where(LateRow.stream == stream)
    if series is not None:
        statement = statement.where(LateRow.series == series)
    if since_ns is not None:
        statement = statement.where(LateRow.created_ns >= since_ns)
    return [_record(row) for row in connection.execute(statement)]


def _record(row: Row[Any]) -> LateRecord:
    return LateRecord(
        row.stream, Partition(row.topic, row.partition), row.offset, row.series, row.time_ns, row.values
    )


@dataclass(frozen=True, slots=True)
class PendingRecord:
    """A late record that has not revised the verdicts of its series."""

    id: int
    record: LateRecord
    created_ns: int


def pending(connection: Connection, stream: str, limit: int) -> list[PendingRecord]:
    """Return the oldest late records of a stream that have revised nothing yet."""
    statement = select(*LateRow.__table__.columns).order_by(LateRow.id).limit(limit)
    return [
        PendingRecord(row.id, _record(row), row.created_ns)
        for row in connection.execute(statement.where(LateRow.revised_ns.is_(None), LateRow.stream == stream))
    ]


def settle(connection: Connection, ids: Sequence[int], now_ns: int) -> bool:
    """Mark pending records as revised; False if one of them is marked."""
    statement = update(LateRow).where(LateRow.id.in_(ids), LateRow.revised_ns.is_(None))
    return connection.execute(statement.values(revised_ns=now_ns)).rowcount == len(ids)


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` late records from before ``before_ns``, and return their number."""
    old = select(LateRow.id).where(LateRow.created_ns < before_ns).limit(limit)
    return connection.execute(delete(LateRow).where(LateRow.id.in_(old))).rowcount
