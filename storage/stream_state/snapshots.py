"""Snapshot of a partition: the state of its series at one offset, in pages of some MB.

It is written and read page by page, so that only one page is in memory beside the state itself. The column
``meta`` also holds a checksum of each page and one of the row. Snapshots of forewatch 0.1.0 have none and are
read without a check.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from safetensors.numpy import load as load_tensors
from sqlalchemy import Connection, Executable, select
from sqlalchemy import delete as sql_delete

from pipeline.core.errors import DamagedState
from pipeline.core.types import Partition, Position
from storage.sql.column_types import insert
from storage.stream_state.checksums import digest, digest_of_values
from storage.stream_state.positions import hold_ownership
from storage.tables.stream import SnapshotPageRow, SnapshotRow

#: Key of ``meta`` under which the checksums are stored: {"pages": [one each], "row": one}.
_CHECKSUMS = "checksums"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State after every record below ``offset``.

    ``pages`` reads from the database and can be iterated once. It raises DamagedState at a page that is missing
    or is not the one that was written.
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
    pages: Iterable[bytes | tuple[bytes, str]],
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
        pages: The state; a page with its checksum makes the transaction shorter.
        state_version: Version of the state.
        meta: Stored with the snapshot, as JSON.
    """
    hold_ownership(connection, position)
    key = {
        "stream": position.stream,
        "topic": position.partition.topic,
        "partition": position.partition.number,
    }
    size, stored = 0, []
    add_page = _put_page(connection)
    for number, page in enumerate(pages):
        data, checksum = page if isinstance(page, tuple) else (page, digest(page))
        connection.execute(add_page, key | {"page": number, "data": data})
        stored.append(checksum)
        size += len(data)
    header = {
        "snapshot_offset": offset,
        "state_version": state_version,
        "meta": meta or {},
        "pages": len(stored),
        "size_bytes": size,
    }
    checked = {_CHECKSUMS: {"pages": stored, "row": _digest_of_row(header, stored)}}
    header |= {"meta": (meta or {}) | checked, "created_ns": time.time_ns()}
    remove(connection, position.stream, position.partition, kept_pages=len(stored))
    connection.execute(insert(connection, SnapshotRow), key | header)
    return size


def _put_page(connection: Connection) -> Executable:
    """Return the statement that writes a page in place of the former one.

    SQLite would take longer to free the pages of its file for a new one.
    """
    add = insert(connection, SnapshotPageRow)
    key = ["stream", "topic", "partition", "page"]
    return add.on_conflict_do_update(index_elements=key, set_={"data": add.excluded.data})


def load(connection: Connection, stream: str, partition: Partition) -> Snapshot | None:
    """Return the snapshot, or None.

    Its pages are read through ``connection``: use them before the transaction ends. Raises DamagedState.
    """
    here = (
        SnapshotRow.stream == stream,
        SnapshotRow.topic == partition.topic,
        SnapshotRow.partition == partition.number,
    )
    try:
        row = connection.execute(select(*SnapshotRow.__table__.columns).where(*here)).one_or_none()
    except (ValueError, TypeError) as error:
        raise DamagedState(f"the row of the snapshot cannot be read: {error}") from None
    if row is None:
        return None
    checksums = _checked_row(dict(row._mapping))
    meta = {name: value for name, value in row.meta.items() if name != _CHECKSUMS}
    pages = _pages(connection, stream, partition, row.pages, checksums)
    return Snapshot(row.snapshot_offset, row.state_version, meta, row.created_ns, row.size_bytes, pages)


def sizes(connection: Connection) -> dict[tuple[str, str, int], int]:
    """Return the bytes of the snapshot of each (stream, topic, partition)."""
    row = SnapshotRow
    found = connection.execute(select(row.stream, row.topic, row.partition, row.size_bytes))
    return {(one.stream, one.topic, one.partition): one.size_bytes for one in found}


def exists(connection: Connection, stream: str, partition: Partition) -> bool:
    """Return True if there is a snapshot of the partition."""
    here = (
        SnapshotRow.stream == stream,
        SnapshotRow.topic == partition.topic,
        SnapshotRow.partition == partition.number,
    )
    return connection.execute(select(SnapshotRow.stream).where(*here)).first() is not None


def check(connection: Connection, stream: str, partition: Partition) -> int:
    """Read a snapshot to its end, and return its offset. Raises DamagedState."""
    snapshot = load(connection, stream, partition)
    if snapshot is None:
        raise DamagedState("there are pages of a snapshot whose row is missing")
    for number, page in enumerate(snapshot.pages):
        try:
            load_tensors(page)
        except Exception as error:  # the errors of safetensors are of any type
            raise DamagedState(f"page {number} of the snapshot cannot be read: {error}") from None
    return snapshot.offset


def partitions(connection: Connection) -> list[tuple[str, Partition]]:
    """Return the reader and the partition of every stored snapshot, also of pages that have no row."""
    found = {
        (row.stream, Partition(row.topic, row.partition))
        for table in (SnapshotRow, SnapshotPageRow)
        for row in connection.execute(select(table.stream, table.topic, table.partition).distinct())
    }
    return sorted(found)


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
    remove(connection, position.stream, position.partition)


def remove(connection: Connection, stream: str, partition: Partition, kept_pages: int = 0) -> None:
    """Delete a snapshot without a fence: its partition is reset, or read again, when it is acquired next.

    Args:
        connection: The open transaction.
        stream: Name of the reader.
        partition: The partition.
        kept_pages: Number of pages that stay, for a new row.
    """
    topic, number = partition
    row, page = SnapshotRow, SnapshotPageRow
    here = (row.stream == stream, row.topic == topic, row.partition == number)
    connection.execute(sql_delete(row).where(*here))
    here = (page.stream == stream, page.topic == topic, page.partition == number)
    connection.execute(sql_delete(page).where(*here, page.page >= kept_pages))


def _checked_row(row: dict[str, Any]) -> list[str] | None:
    """Return the checksums of the pages, None if there are none. Raises DamagedState."""
    meta = row["meta"]
    if not isinstance(meta, dict) or not isinstance(row["pages"], int) or row["pages"] < 0:
        raise DamagedState("the row of the snapshot is damaged")
    if (stored := meta.get(_CHECKSUMS)) is None:
        return None
    plain = {name: value for name, value in meta.items() if name != _CHECKSUMS}
    try:
        pages = list(map(str, stored["pages"]))
        valid = stored["row"] == _digest_of_row(row | {"meta": plain}, pages)
    except (KeyError, TypeError):
        valid = False
    if not valid:
        raise DamagedState("the row of the snapshot does not match its checksum")
    return pages


def _digest_of_row(row: dict[str, Any], pages: Sequence[str]) -> str:
    names = ("snapshot_offset", "state_version", "meta", "pages", "size_bytes")
    return digest_of_values({name: row[name] for name in names} | {"checksums": list(pages)})


def _pages(
    connection: Connection, stream: str, partition: Partition, count: int, checksums: Sequence[str] | None
) -> Iterator[bytes]:
    key = (
        SnapshotPageRow.stream == stream,
        SnapshotPageRow.topic == partition.topic,
        SnapshotPageRow.partition == partition.number,
    )
    for page in range(count):
        data = connection.execute(
            select(SnapshotPageRow.data).where(*key, SnapshotPageRow.page == page)
        ).scalar_one_or_none()
        if not isinstance(data, bytes):
            raise DamagedState(f"page {page} of {count} of the snapshot is missing")
        if checksums is not None and digest(data) != checksums[page]:
            raise DamagedState(f"page {page} of {count} of the snapshot does not match its checksum")
        yield data
