"""Snapshot of a partition: the state of its series at one offset, in pages of some MB.

It is written and read page by page, so that only one page is in memory beside the state itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy import delete as sql_delete

from pipeline.core.types import Partition, Position
from storage.stream_state.positions import hold_ownership
from storage.tables.stream import SnapshotPageRow, SnapshotRow


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State after every record below ``offset``.

    ``pages`` reads from the database and can be iterated once.
    """

    offset: int
    state_version: str
    meta: dict[str, Any]
    created_ns: int
    size_bytes: int
    pages: Iterator[bytes]


def save(
    connection: Connection,
    position: Position,
    offset: int,
    pages: Iterable[bytes],
    *,
    state_version: str = "",
    meta: dict[str, Any] | None = None,
) -> int:
    """Replace the partition's snapshot in this transaction; returns its size in bytes. Raises Fenced.

    Everything below ``offset`` must be durable before this commits: earlier records are never read again.

    Args:
        connection: The open transaction.
        position: The owned position.
        offset: The state covers every record below it.
        pages: The state.
        state_version: Version of the state.
        meta: Stored with the snapshot, as JSON.
    """
    delete(connection, position)
    key = {
        "stream": position.stream,
        "topic": position.partition.topic,
        "partition": position.partition.number,
    }
    count = size = 0
    for page in pages:
        connection.execute(insert(SnapshotPageRow), key | {"page": count, "data": page})
        count, size = count + 1, size + len(page)
    header = {
        "snapshot_offset": offset,
        "state_version": state_version,
        "meta": meta or {},
        "created_ns": time.time_ns(),
    }
    connection.execute(insert(SnapshotRow), key | header | {"pages": count, "size_bytes": size})
    return size


def load(connection: Connection, stream: str, partition: Partition) -> Snapshot | None:
    """Return the snapshot, or None.

    Its pages are read through ``connection``: use them before the transaction ends.
    """
    here = (
        SnapshotRow.stream == stream,
        SnapshotRow.topic == partition.topic,
        SnapshotRow.partition == partition.number,
    )
    row = connection.execute(select(*SnapshotRow.__table__.columns).where(*here)).one_or_none()
    if row is None:
        return None
    pages = _pages(connection, stream, partition, row.pages)
    return Snapshot(row.snapshot_offset, row.state_version, row.meta, row.created_ns, row.size_bytes, pages)


def offsets(connection: Connection, stream: str) -> dict[Partition, int]:
    """Return the offset of each partition's snapshot; records below it are not scored again."""
    rows = connection.execute(
        select(SnapshotRow.topic, SnapshotRow.partition, SnapshotRow.snapshot_offset).where(
            SnapshotRow.stream == stream
        )
    )
    return {Partition(row.topic, row.partition): row.snapshot_offset for row in rows}


def delete(connection: Connection, position: Position) -> None:
    """Delete the snapshot of a deleted log. Raises Fenced."""
    hold_ownership(connection, position)
    topic, number = position.partition
    for table in (SnapshotPageRow, SnapshotRow):
        here = (table.stream == position.stream, table.topic == topic, table.partition == number)
        connection.execute(sql_delete(table).where(*here))


def _pages(connection: Connection, stream: str, partition: Partition, count: int) -> Iterator[bytes]:
    key = (
        SnapshotPageRow.stream == stream,
        SnapshotPageRow.topic == partition.topic,
        SnapshotPageRow.partition == partition.number,
    )
    for page in range(count):
        yield connection.execute(
            select(SnapshotPageRow.data).where(*key, SnapshotPageRow.page == page)
        ).scalar_one()
