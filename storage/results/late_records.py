"""Late records: points older than the last scored one of their series."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, case, delete, insert, null, select, update

from pipeline.core.types import LateRecord, Partition
from storage.tables.stream import LateRow

#: Shortest time between two revisions by one late record.
SHORTEST_INTERVAL_NS = 15 * 10**9
_AT_ONCE = 500  # series in one IN list


def add(connection: Connection, records: Sequence[LateRecord], *, revise: bool = True) -> None:
    """Insert late records; with ``revise`` they revise verdicts later."""
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
            "due_ns": 0 if revise else None,
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


def of_series(connection: Connection, stream: str, series: Sequence[str]) -> list[LateRecord]:
    """Return late records of some series, in the order of arrival."""
    statement = select(*LateRow.__table__.columns).where(LateRow.stream == stream)
    parts = [series[at : at + _AT_ONCE] for at in range(0, len(series), _AT_ONCE)]
    rows = [row for part in parts for row in connection.execute(statement.where(LateRow.series.in_(part)))]
    return [_record(row) for row in sorted(rows, key=lambda row: int(row.id))]


@dataclass(frozen=True, slots=True)
class PendingRecord:
    """A late record that is due to revise the verdicts of its series."""

    id: int
    record: LateRecord
    created_ns: int


def pending(connection: Connection, stream: str, now_ns: int, limit: int) -> list[PendingRecord]:
    """Return the oldest late records that are due to revise verdicts.

    Args:
        connection: A connection.
        stream: Name of the stream.
        now_ns: Time of the clock.
        limit: Largest number of records.
    """
    statement = select(*LateRow.__table__.columns).order_by(LateRow.id).limit(limit)
    return [
        PendingRecord(row.id, _record(row), row.created_ns)
        for row in connection.execute(statement.where(LateRow.due_ns <= now_ns, LateRow.stream == stream))
    ]


def settle(connection: Connection, ids: Sequence[int], now_ns: int, last_ns: int) -> bool:
    """Note that due records have revised verdicts; False if one is not due.

    The points after a late one are scored by a state that may not hold it. So it is due again after as much
    time as has passed since its arrival.

    Args:
        connection: A transaction.
        ids: The records.
        now_ns: Time of the clock.
        last_ns: Records that arrived before this time are not due again.
    """
    age = now_ns - LateRow.created_ns
    again = case(
        (LateRow.created_ns < last_ns, null()),
        (age < SHORTEST_INTERVAL_NS, now_ns + SHORTEST_INTERVAL_NS),
        else_=now_ns + age,
    )
    statement = update(LateRow).where(LateRow.id.in_(ids), LateRow.due_ns <= now_ns)
    return connection.execute(statement.values(revised_ns=now_ns, due_ns=again)).rowcount == len(ids)


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` late records from before ``before_ns``, and return their number."""
    old = select(LateRow.id).where(LateRow.created_ns < before_ns).limit(limit)
    return connection.execute(delete(LateRow).where(LateRow.id.in_(old))).rowcount
