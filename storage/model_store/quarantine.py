"""Ranges of time that a person excludes from training.

Flagged and labelled points need no row here: the anomalies record them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from sqlalchemy import Connection, insert, select, update

from storage.tables.models import QuarantineRow


@dataclass(slots=True)
class ExcludedRange:
    """Points of ``series`` (None: of every series of the stream) with start_ns ≤ time < end_ns."""

    id: int
    stream: str
    series: str | None
    start_ns: int
    end_ns: int
    reason: str
    author: str
    created_ns: int
    removed_ns: int | None = None
    removed_by: str | None = None


_NAMES = [one.name for one in fields(ExcludedRange)]
_COLUMNS = [getattr(QuarantineRow, name) for name in _NAMES]


def add(connection: Connection, excluded: ExcludedRange) -> int:
    """Store a range and return its id; the id of ``excluded`` is not used."""
    values = {name: getattr(excluded, name) for name in _NAMES if name != "id"}
    return connection.execute(insert(QuarantineRow).values(values).returning(QuarantineRow.id)).scalar_one()


def query(connection: Connection, *, stream: str | None = None, removed: bool = False) -> list[ExcludedRange]:
    """Return ranges by their beginning, with ``removed`` also the removed ones."""
    statement = select(*_COLUMNS).order_by(QuarantineRow.stream, QuarantineRow.start_ns, QuarantineRow.id)
    if stream is not None:
        statement = statement.where(QuarantineRow.stream == stream)
    if not removed:
        statement = statement.where(QuarantineRow.removed_ns.is_(None))
    return [ExcludedRange(*row) for row in connection.execute(statement)]


def remove(connection: Connection, id_: int, author: str, now_ns: int) -> bool:
    """Return the range to training; return False if it does not exist."""
    statement = update(QuarantineRow).where(QuarantineRow.id == id_, QuarantineRow.removed_ns.is_(None))
    return connection.execute(statement.values(removed_ns=now_ns, removed_by=author)).rowcount > 0
