"""Late records: points older than the last scored one of their series."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, false, insert, or_, select, update

from pipeline.core.types import LateRecord, Partition
from storage.tables.stream import LateRow

#: Mark of a record that revises nothing, because it was too old when it came.
EXCLUDED_NS = 0
_AT_ONCE = 500  # names or ids in one IN list


def add(connection: Connection, records: Sequence[LateRecord], *, revise: bool = True) -> None:
    """Insert late records.

    With ``revise`` they revise verdicts later, unless they were too old when they came.
    """
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
            "due_ns": 0 if revise and record.revises else None,
            "revised_ns": EXCLUDED_NS if revise and not record.revises else None,
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
class LateEntry:
    """Stored late record."""

    id: int
    record: LateRecord
    created_ns: int


def pending(
    connection: Connection, stream: str, partitions: Sequence[Partition], limit: int
) -> list[LateEntry]:
    """Return the oldest late records of some partitions that have revised nothing yet.

    Args:
        connection: A connection.
        stream: Name of the stream.
        partitions: The partitions.
        limit: Largest number of records.
    """
    statement = select(*LateRow.__table__.columns).order_by(LateRow.id).limit(limit)
    statement = statement.where(LateRow.due_ns.is_not(None), _in(stream, partitions))
    return [_entry(row) for row in connection.execute(statement)]


def added_after(
    connection: Connection, stream: str, partitions: Sequence[Partition], after_id: int
) -> list[LateRecord]:
    """Return late records that were stored after another one, by arrival.

    Args:
        connection: A connection.
        stream: Name of the stream.
        partitions: The partitions.
        after_id: Id of the other record, 0 for all.
    """
    statement = select(*LateRow.__table__.columns).order_by(LateRow.id)
    statement = statement.where(_in(stream, partitions), LateRow.id > after_id)
    return [_record(row) for row in connection.execute(statement)]


def pending_series(connection: Connection, stream: str, partition: Partition) -> list[str]:
    """Return the names of the series with late records that have revised nothing yet."""
    statement = select(LateRow.series).distinct().where(LateRow.due_ns.is_not(None))
    return list(connection.execute(statement.where(_in(stream, [partition]))).scalars())


def of_series(connection: Connection, stream: str, series: Sequence[str]) -> list[LateEntry]:
    """Return late records of series that have revised verdicts or may, by arrival."""
    statement = select(*LateRow.__table__.columns).where(LateRow.stream == stream)
    statement = statement.where(LateRow.due_ns.is_not(None) | (LateRow.revised_ns != EXCLUDED_NS))
    parts = [series[at : at + _AT_ONCE] for at in range(0, len(series), _AT_ONCE)]
    rows = [row for part in parts for row in connection.execute(statement.where(LateRow.series.in_(part)))]
    return sorted(map(_entry, rows), key=lambda entry: entry.id)


def _in(stream: str, partitions: Sequence[Partition]) -> ColumnElement[bool]:
    """Return the condition that a record is of one of these partitions."""
    here = (and_(LateRow.topic == topic, LateRow.partition == number) for topic, number in partitions)
    return and_(LateRow.stream == stream, or_(false(), *here))


def _entry(row: Row[Any]) -> LateEntry:
    return LateEntry(row.id, _record(row), row.created_ns)


def settle(connection: Connection, ids: Sequence[int], now_ns: int) -> None:
    """Mark pending records as revised, or as too old (``EXCLUDED_NS``)."""
    for at in range(0, len(ids), _AT_ONCE):
        statement = update(LateRow).where(
            LateRow.id.in_(ids[at : at + _AT_ONCE]), LateRow.due_ns.is_not(None)
        )
        connection.execute(statement.values(revised_ns=now_ns, due_ns=None))


def reopen(connection: Connection, stream: str, partition: Partition) -> int:
    """Make the revisions of a partition pending again, and return their number.

    Its state was made again from the records, in which these points are late. Those that were too old
    stay so.
    """
    statement = update(LateRow).where(_in(stream, [partition]))
    statement = statement.where(LateRow.due_ns.is_(None), LateRow.revised_ns > EXCLUDED_NS)
    return connection.execute(statement.values(due_ns=0, revised_ns=None)).rowcount


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` late records from before ``before_ns``, and return their number."""
    old = select(LateRow.id).where(LateRow.created_ns < before_ns).limit(limit)
    return connection.execute(delete(LateRow).where(LateRow.id.in_(old))).rowcount
