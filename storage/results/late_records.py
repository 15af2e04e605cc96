"""Late records: points older than the last scored one of their series."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

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
    """Return late records, newest arrival first; ``since_ns`` is a time of arrival."""
    statement = select(*LateRow.__table__.columns).order_by(LateRow.id.desc()).limit(limit)
    if stream is not None:
        statement = statement.where(LateRow.stream == stream)
    if series is not None:
        statement = statement.where(LateRow.series == series)
    if since_ns is not None:
        statement = statement.where(LateRow.created_ns >= since_ns)
    return [
        LateRecord(
            row.stream, Partition(row.topic, row.partition), row.offset, row.series, row.time_ns, row.values
        )
        for row in connection.execute(statement)
    ]


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` late records from before ``before_ns``, and return their number."""
    old = select(LateRow.id).where(LateRow.created_ns < before_ns).limit(limit)
    return connection.execute(delete(LateRow).where(LateRow.id.in_(old))).rowcount
