"""State of offloaded series: those that were silent for so long that they are no longer in memory.

Recovery replays from the snapshot, so a stored state belongs to the snapshot that was taken with it.
``offload`` and ``forget`` run in the transaction that saves a snapshot; ``restore`` only reads, so that a
replay still finds a series that came back after the snapshot.

The column ``state_version`` also holds a checksum of the state, after ``#``. States of forewatch 0.1.0 have
none and are read without a check.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, delete, func, select

from pipeline.core.types import Partition, Position
from storage.sql.column_types import delete_older, insert, short_key
from storage.stream_state.checksums import digest
from storage.stream_state.positions import hold_ownership
from storage.tables.stream import SeriesStateRow

T = TypeVar("T")

KEYS_PER_STATEMENT = 500


@dataclass(frozen=True, slots=True)
class SeriesState:
    """State of one series as its codec wrote it, and the event time of its last point."""

    series: str
    state: bytes
    state_version: str
    last_ns: int


def offload(connection: Connection, position: Position, states: Iterable[SeriesState]) -> int:
    """Store states of the partition's series, and return their number. Raises Fenced."""
    hold_ownership(connection, position)
    return store(connection, position.stream, position.partition, states)


def store(connection: Connection, stream: str, partition: Partition, states: Iterable[SeriesState]) -> int:
    """Store states in place of older ones, without a fence, and return their number."""
    statement = insert(connection, SeriesStateRow)
    changed = {name: statement.excluded[name] for name in ("state", "state_version", "last_ns", "evicted_ns")}
    statement = statement.on_conflict_do_update(
        index_elements=["stream", "topic", "partition", "series_key"], set_=changed
    )
    key = {
        "stream": stream,
        "topic": partition.topic,
        "partition": partition.number,
        "evicted_ns": time.time_ns(),
    }
    count = 0
    for some in _chunks(states):
        rows: list[dict[str, Any]] = [
            key
            | {
                "series_key": short_key(s.series),
                "series": s.series,
                "state": s.state,
                "state_version": f"{s.state_version}#{digest(s.state)}",
                "last_ns": s.last_ns,
            }
            for s in some
        ]
        connection.execute(statement, rows)
        count += len(rows)
    return count


def restore(
    connection: Connection,
    stream: str,
    partition: Partition,
    keys: Sequence[str],
    on_damage: Callable[[str], None] = lambda key: None,
) -> dict[str, SeriesState]:
    """Return the stored states among ``keys``. They stay stored until ``forget``.

    Args:
        connection: The open transaction.
        stream: Name of the reader.
        partition: The partition of the series.
        keys: Keys of the series.
        on_damage: Called with the key of a state that does not match its checksum; the state is left out.
    """
    found: dict[str, SeriesState] = {}
    asked = {short_key(key): key for key in keys}
    for some in _chunks(asked):
        columns = (
            SeriesStateRow.series_key,
            SeriesStateRow.state,
            SeriesStateRow.state_version,
            SeriesStateRow.last_ns,
        )
        statement = select(*columns).where(*_of(stream, partition), SeriesStateRow.series_key.in_(some))
        for row in connection.execute(statement):
            key = asked[row.series_key]
            version, checked, checksum = str(row.state_version).rpartition("#")
            if not isinstance(row.state, bytes) or (checked and digest(row.state) != checksum):
                on_damage(key)
            else:
                found[key] = SeriesState(key, row.state, version if checked else checksum, row.last_ns)
    return found


def forget(connection: Connection, position: Position, keys: Sequence[str]) -> None:
    """Delete states that the snapshot of this transaction contains again. Raises Fenced."""
    hold_ownership(connection, position)
    for some in _chunks(map(short_key, keys)):
        connection.execute(
            delete(SeriesStateRow).where(
                *_of(position.stream, position.partition), SeriesStateRow.series_key.in_(some)
            )
        )


def count(connection: Connection, stream: str, partition: Partition) -> int:
    """Return the number of stored series of the partition."""
    return connection.execute(
        select(func.count()).select_from(SeriesStateRow).where(*_of(stream, partition))
    ).scalar_one()


def trim(connection: Connection, position: Position, most: int) -> int:
    """Delete the oldest states of the partition beyond ``most`` states of the stream; return their number.

    Raises Fenced.
    """
    hold_ownership(connection, position)
    of_stream = SeriesStateRow.stream == position.stream
    total = connection.execute(select(func.count()).select_from(SeriesStateRow).where(of_stream)).scalar_one()
    if total <= most:
        return 0
    oldest = (
        select(SeriesStateRow.series_key)
        .where(*_of(position.stream, position.partition))
        .order_by(SeriesStateRow.evicted_ns, SeriesStateRow.last_ns)
        .limit(total - most)
    )
    keys = list(connection.execute(oldest).scalars())
    for some in _chunks(keys):
        connection.execute(
            delete(SeriesStateRow).where(
                *_of(position.stream, position.partition), SeriesStateRow.series_key.in_(some)
            )
        )
    return len(keys)


def damaged(connection: Connection) -> Iterator[tuple[str, Partition, bytes, str]]:
    """Yield (reader, partition, stored key, series) of each state that does not match its checksum."""
    table = SeriesStateRow
    columns = (
        table.stream,
        table.topic,
        table.partition,
        table.series_key,
        table.series,
        table.state,
        table.state_version,
    )
    for row in connection.execute(select(*columns).execution_options(yield_per=KEYS_PER_STATEMENT)):
        _, checked, checksum = str(row.state_version).rpartition("#")
        if not isinstance(row.state, bytes) or (checked and digest(row.state) != checksum):
            yield row.stream, Partition(row.topic, row.partition), row.series_key, row.series


def remove(connection: Connection, stream: str, partition: Partition, series_key: bytes) -> None:
    """Delete the state of one series without a fence; the series starts without it."""
    connection.execute(
        delete(SeriesStateRow).where(*_of(stream, partition), SeriesStateRow.series_key == series_key)
    )


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` states stored before ``before_ns``, and return their number."""
    return delete_older(connection, SeriesStateRow.evicted_ns, before_ns, limit)


def _of(stream: str, partition: Partition) -> tuple[ColumnElement[bool], ...]:
    return (
        SeriesStateRow.stream == stream,
        SeriesStateRow.topic == partition.topic,
        SeriesStateRow.partition == partition.number,
    )


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, KEYS_PER_STATEMENT)):
        yield chunk
