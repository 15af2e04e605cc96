"""Readers: the names under which positions, snapshots and offloaded series are kept.

A reader is a stream, or one backfill of it.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select

from storage.tables.stream import PositionRow, SeriesStateRow, SnapshotPageRow, SnapshotRow


def names(connection: Connection, prefix: str) -> list[str]:
    """The ledgers that have positions and whose names begin so."""
    column = PositionRow.stream
    return list(
        connection.execute(
            select(column).where(column.startswith(prefix, autoescape=True)).distinct()
        ).scalars()
    )


def last_owners(connection: Connection, prefix: str) -> list[tuple[str, str, int]]:
    """Return (name, owner of its newest position, time of that position in ns) of the readers whose names begin so."""
    row, newest = PositionRow, {}
    statement = select(row.stream, row.owner, row.updated_ns).where(
        row.stream.startswith(prefix, autoescape=True)
    )
    for name, owner, updated_ns in connection.execute(statement.order_by(row.updated_ns)):
        newest[name] = (name, owner, updated_ns)
    return list(newest.values())


def forget(connection: Connection, stream: str) -> None:
    """Delete positions, snapshots and offloaded series of a reader; anomalies and dead letters stay."""
    for table in (SnapshotPageRow, SnapshotRow, SeriesStateRow, PositionRow):
        connection.execute(delete(table).where(table.stream == stream))


def forget_states(connection: Connection, stream: str) -> None:
    """Delete snapshots and offloaded series of a reader.

    Its positions stay, so that its records are read again, for the state only.
    """
    for table in (SnapshotPageRow, SnapshotRow, SeriesStateRow):
        connection.execute(delete(table).where(table.stream == stream))


def progress(connection: Connection, prefix: str) -> dict[str, int]:
    """Return the offsets read by each reader whose name begins so."""
    row = PositionRow
    statement = select(row.stream, func.sum(row.next_offset - row.start_offset)).group_by(row.stream)
    found = connection.execute(statement.where(row.stream.startswith(prefix, autoescape=True)))
    return {name: int(count or 0) for name, count in found}
