"""All that is kept of a reader of partitions: a stream, or one backfill of it."""

from __future__ import annotations

from sqlalchemy import Connection, delete

from storage.tables import PositionRow, SeriesStateRow, SnapshotPageRow, SnapshotRow


def forget(connection: Connection, stream: str) -> None:
    """Delete positions, snapshots and stored series under this name; anomalies and dead letters stay."""
    for table in (SnapshotPageRow, SnapshotRow, SeriesStateRow, PositionRow):
        connection.execute(delete(table).where(table.stream == stream))
