"""Positions of partitions, with the fence of every batch.

There is one row per partition. Acquiring it increases ``epoch``. Every batch starts with a compare-and-set on
(epoch, next_offset) that must change exactly one row, so that a replaced owner cannot commit.

    acquire ─► advance ─► advance ─► … ─► Fenced (another owner acquired it)

On PostgreSQL an owner that is frozen inside its transaction holds the row's lock. The successor waits for
``LOCK_TIMEOUT_MS``, then ends that transaction. Which server process that is, is read from the row itself:
``xmax`` names the transaction that has it locked and ``pg_locks`` that transaction's process. (A process id
recorded by the last commit may be another connection of the owner's pool, or by now somebody else.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Executable, Row, bindparam, select, text, update

from pipeline.core.errors import StorageUnavailable
from pipeline.core.types import Counts, Partition, Position
from storage.sql.column_types import insert
from storage.sql.database import Database, RowLocked
from storage.sql.statements import StreamChoice, of_streams
from storage.tables.stream import PositionRow

T = TypeVar("T")

#: A partition gets a new owner when the former one has left it, or was silent for its session. So whoever still
#: holds the lock is frozen, and would be fenced.
LOCK_TIMEOUT_MS = 200
MAX_LOCK_ATTEMPTS = 10
#: Column → field of ``Counts``. The column of buffered records keeps the name of the first schema.
_COUNT_COLUMNS = {
    "scored": "scored",
    "late": "late",
    "duplicate": "duplicate",
    "dead_lettered": "dead_lettered",
    "filtered": "filtered",
    "held": "buffered",
}

_ADVANCE = (
    update(PositionRow)
    .where(PositionRow.stream == bindparam("our_stream"))
    .where(PositionRow.topic == bindparam("our_topic"))
    .where(PositionRow.partition == bindparam("our_partition"))
    .where(PositionRow.epoch == bindparam("our_epoch"))
    .where(PositionRow.next_offset.is_not_distinct_from(bindparam("our_offset")))
)

_LOCK_HOLDERS = text("""
    SELECT pg_terminate_backend(l.pid)
    FROM positions p JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = p.xmax AND l.granted
    WHERE p.stream = :stream AND p.topic = :topic AND p.partition = :partition
""")


class Fenced(Exception):
    """Another owner has acquired or moved ``partition``: drop its state, commit nothing."""

    def __init__(self, stream: str, partition: Partition) -> None:
        super().__init__(f"stream {stream}: {partition} has another owner now")
        self.stream = stream
        self.partition = partition


class CommitOutcome(Enum):
    COMMITTED = "committed"
    NOT_COMMITTED = "not committed"
    FENCED = "fenced"


def acquire(database: Database, stream: str, partition: Partition, owner: str, identity: str) -> Position:
    """Become the owner of ``partition``; the former owner cannot commit from then on.

    Raises StorageUnavailable.

    Args:
        database: Holds the positions.
        stream: Name of the reader.
        partition: The partition to own.
        owner: Name of this process, for operators.
        identity: Identity of the log. Only the first one is stored; the returned position holds the stored
            one for comparison.
    """

    def claim() -> Position:
        # Autocommit: if this process freezes in between, it holds no lock.
        with database.autocommit() as connection:
            statement = _claim(connection, stream, {partition: identity}, owner)
            return _position(_execute_with_timeout(connection, statement)[0])

    return _with_unlocked_row(database, stream, partition, claim)


def acquire_all(
    database: Database, stream: str, identities: Mapping[Partition, str], owner: str
) -> dict[Partition, Position]:
    """Become the owner of several partitions in one statement.

    Rows are locked in the order of partitions, as in all transactions. The result is empty if one of them
    stays locked: ``acquire`` then ends the transaction that holds it. Raises StorageUnavailable.

    Args:
        database: Holds the positions.
        stream: Name of the reader.
        identities: Identity of the log of each partition.
        owner: Name of this process, for operators.
    """
    if not identities:
        return {}
    try:
        with database.autocommit() as connection:
            statement = _claim(connection, stream, dict(sorted(identities.items())), owner)
            found = map(_position, _execute_with_timeout(connection, statement))
            return {one.partition: one for one in found}
    except RowLocked:
        return {}


def _claim(
    connection: Connection, stream: str, identities: Mapping[Partition, str], owner: str
) -> Executable:
    """Return the statement that raises the epochs of partitions, in their order."""
    now = time.time_ns()
    first = dict.fromkeys(_COUNT_COLUMNS, 0) | {"epoch": 1, "commits": 0, "owner": owner, "updated_ns": now}
    rows = [
        _key(stream, partition) | first | {"identity": identity} for partition, identity in identities.items()
    ]
    return (
        insert(connection, PositionRow)
        .values(rows)
        .on_conflict_do_update(
            index_elements=["stream", "topic", "partition"],
            set_={"epoch": PositionRow.epoch + 1, "owner": owner, "updated_ns": now},
        )
        .returning(*PositionRow.__table__.columns)
    )


def advance(
    connection: Connection, position: Position, next_offset: int, counts: Counts, watermark_ns: int | None
) -> Position:
    """Move the position, as the first statement of a batch's transaction.

    A transaction that advances several partitions does so in the order of (stream, partition) to avoid
    deadlocks. A new partition is advanced to its start offset without counts, so that a crash before the first
    batch does not move ``latest`` on. Raises Fenced.

    Args:
        connection: The open transaction.
        position: The position before the batch.
        next_offset: The next offset to read after the batch.
        counts: Cumulative counts after the batch.
        watermark_ns: Watermark after the batch.
    """
    after = advanced(position, next_offset, counts, watermark_ns)
    expected = {"our_epoch": position.epoch, "our_offset": position.next_offset}
    expected |= {f"our_{name}": value for name, value in _key(position.stream, position.partition).items()}
    if connection.execute(_ADVANCE, expected | _values(after)).rowcount != 1:
        raise Fenced(position.stream, position.partition)
    return after


def advanced(
    position: Position, next_offset: int, counts: Counts, watermark_ns: int | None = None
) -> Position:
    """Return the position after ``advance``, without a database.

    The start offset follows from ``counts``, because offsets read = ``counts.read()``.
    """
    start = next_offset - counts.read() if position.start_offset is None else position.start_offset
    return Position(
        position.stream,
        position.partition,
        position.epoch,
        next_offset,
        start,
        position.identity,
        counts,
        watermark_ns,
        position.commits + 1,
    )


def restart(
    connection: Connection, position: Position, identity: str, next_offset: int, counts: Counts
) -> Position:
    """Continue at another offset, or in another log of the same name, after a gap.

    ``counts`` are carried over (records still buffered); the rest starts at zero at the new offset. A
    snapshot of the new offset must be saved in the same transaction. Raises Fenced.
    """
    moved = Position(
        position.stream,
        position.partition,
        position.epoch,
        position.next_offset,
        None,
        identity,
        commits=position.commits,
    )
    return advance(connection, moved, next_offset, counts, position.watermark_ns)


def hold_ownership(connection: Connection, position: Position) -> None:
    """Keep the ownership of ``position`` until the end of this transaction. Raises Fenced."""
    statement = select(PositionRow.epoch).where(*_is(position.stream, position.partition)).with_for_update()
    if connection.execute(statement).scalar() != position.epoch:
        raise Fenced(position.stream, position.partition)


def confirm(database: Database, position: Position, next_offset: int) -> CommitOutcome:
    """Return the outcome of an ``advance(…, position, next_offset, …)`` whose COMMIT had no answer.

    Waits for a transaction that is still open on the server, and ends it if it makes no progress, so that the
    outcome is final. Raises StorageUnavailable.
    """
    statement = (
        select(*PositionRow.__table__.columns)
        .where(*_is(position.stream, position.partition))
        .with_for_update()
    )

    def read() -> CommitOutcome:
        with database.autocommit() as connection:
            row = _execute_with_timeout(connection, statement)[0]
        if row.epoch != position.epoch:
            return CommitOutcome.FENCED
        if row.commits == position.commits:
            return CommitOutcome.NOT_COMMITTED
        return CommitOutcome.COMMITTED if row.next_offset == next_offset else CommitOutcome.FENCED

    return _with_unlocked_row(database, position.stream, position.partition, read)


def get(connection: Connection, stream: str, partition: Partition) -> Position | None:
    """Return the committed position; owners use ``acquire``."""
    row = connection.execute(
        select(*PositionRow.__table__.columns).where(*_is(stream, partition))
    ).one_or_none()
    return None if row is None else _position(row)


def all_of(connection: Connection, stream: StreamChoice = None) -> list[Position]:
    """Return all positions, or those of some streams, in order."""
    statement = select(*PositionRow.__table__.columns).order_by(
        PositionRow.stream, PositionRow.topic, PositionRow.partition
    )
    if stream is not None:
        statement = statement.where(of_streams(PositionRow.stream, stream))
    return [_position(row) for row in connection.execute(statement)]


def owners(connection: Connection) -> dict[tuple[str, str, int], tuple[str, int]]:
    """Return owner and time of the last commit of each (stream, topic, partition)."""
    row = PositionRow
    found = connection.execute(select(row.stream, row.topic, row.partition, row.owner, row.updated_ns))
    return {(one.stream, one.topic, one.partition): (one.owner, one.updated_ns) for one in found}


def _with_unlocked_row(database: Database, stream: str, partition: Partition, action: Callable[[], T]) -> T:
    for _ in range(MAX_LOCK_ATTEMPTS):
        try:
            return action()
        except RowLocked:
            with database.autocommit() as connection:
                connection.execute(_LOCK_HOLDERS, _key(stream, partition))
    raise StorageUnavailable(f"{database}: the row of {partition} in stream {stream} is still locked")


def _execute_with_timeout(connection: Connection, statement: Executable) -> Sequence[Row[Any]]:
    """Execute a statement that locks rows, waiting for each.

    ``LOCK_TIMEOUT_MS`` is the longest time for one.

    Raises RowLocked through ``Database``.
    """
    if connection.dialect.name == "sqlite":
        return connection.execute(statement).all()
    connection.exec_driver_sql(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
    try:
        return connection.execute(statement).all()
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql("RESET lock_timeout")


def _key(stream: str, partition: Partition) -> dict[str, Any]:
    return {"stream": stream, "topic": partition.topic, "partition": partition.number}


def _is(stream: str, partition: Partition) -> tuple[ColumnElement[bool], ...]:
    return (
        PositionRow.stream == stream,
        PositionRow.topic == partition.topic,
        PositionRow.partition == partition.number,
    )


def _values(position: Position) -> dict[str, Any]:
    values = {
        name: getattr(position, name)
        for name in ("next_offset", "start_offset", "identity", "watermark_ns", "commits")
    }
    counts = {column: getattr(position.counts, field) for column, field in _COUNT_COLUMNS.items()}
    return values | counts | {"updated_ns": time.time_ns()}


def _position(row: Row[Any]) -> Position:
    return Position(
        row.stream,
        Partition(row.topic, row.partition),
        row.epoch,
        row.next_offset,
        row.start_offset,
        row.identity,
        Counts(**{field: getattr(row, column) for column, field in _COUNT_COLUMNS.items()}),
        row.watermark_ns,
        row.commits,
    )
