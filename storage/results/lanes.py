"""Anomalies as spans of lanes: what an overview needs of many rows."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Text, case, cast, func, literal, select

from pipeline.core.types import AnomalyState, Severity
from storage.sql.statements import StreamChoice, of_streams
from storage.tables.stream import AnomalyRow, PositionRow

_RANK = case({level.value: rank for rank, level in enumerate(Severity)}, value=AnomalyRow.severity, else_=0)


class Span(NamedTuple):
    """Anomaly on the lane of its series.

    ``severity`` is 0 for info to 3 for critical, ``labels`` is JSON: a few series have thousands of spans.
    """

    series: str
    labels: str
    severity: int
    start_ns: int
    end_ns: int
    open: bool


class Brief(NamedTuple):
    """State of an anomaly, without its numbers."""

    id: UUID
    stream: str
    state: str
    severity: str
    updated_ns: int


_BRIEF = (AnomalyRow.id, AnomalyRow.stream, AnomalyRow.state, AnomalyRow.severity, AnomalyRow.updated_ns)


def spans(connection: Connection, stream: str, since_ns: int, limit: int) -> list[Span]:
    """Return anomalies of a stream, the last end first.

    Args:
        connection: a connection.
        stream: the stream.
        since_ns: earliest end.
        limit: maximum number of anomalies.
    """
    row = AnomalyRow
    is_open = row.state == AnomalyState.OPEN.value
    began_ns = case((row.onset_ns > 0, row.onset_ns), else_=row.start_ns)
    lasted_until_ns = case((row.outside_until_ns > 0, row.outside_until_ns), else_=row.end_ns)
    statement = (
        select(row.series, cast(row.labels, Text), _RANK, began_ns, lasted_until_ns, is_open)
        .where(row.stream == stream, row.end_ns >= since_ns)
        .order_by(row.end_ns.desc())
        .limit(limit)
    )
    return [Span(*found) for found in connection.execute(statement)]


def last_commits(connection: Connection, streams: StreamChoice = None) -> dict[str, int]:
    """Return the time of the last commit of each stream, in ns."""
    row = PositionRow
    statement = select(row.stream, func.max(row.updated_ns)).group_by(row.stream)
    found = connection.execute(statement.where(of_streams(row.stream, streams)))
    return {stream: int(updated) for stream, updated in found}


def newest_end_ns(connection: Connection, stream: str) -> int | None:
    """Return the end of the last anomaly of a stream."""
    return connection.scalar(select(func.max(AnomalyRow.end_ns)).where(AnomalyRow.stream == stream))


def open_briefs(connection: Connection, limit: int) -> list[Brief]:
    """Return the states of open anomalies."""
    found = connection.execute(select(*_BRIEF).where(_is_open()).limit(limit))
    return [Brief(*row) for row in found]


def briefs_since(connection: Connection, since_ns: int, limit: int) -> list[Brief]:
    """Return the states of anomalies that were written since a time, by that time."""
    statement = select(*_BRIEF).where(AnomalyRow.updated_ns >= since_ns)
    return [Brief(*row) for row in connection.execute(statement.order_by(AnomalyRow.updated_ns).limit(limit))]


def count_open(connection: Connection, streams: StreamChoice = None) -> int:
    """Return the number of open anomalies of some streams."""
    statement = select(func.count(AnomalyRow.id)).where(_is_open(), of_streams(AnomalyRow.stream, streams))
    return int(connection.scalar(statement) or 0)


def _is_open() -> ColumnElement[bool]:
    """Return the condition of the partial index, which a bound value would not match."""
    return AnomalyRow.state == literal(AnomalyState.OPEN.value, literal_execute=True)
