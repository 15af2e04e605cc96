"""Dead letters: records that could not be decoded, with all that a replay needs."""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from pipeline.core.errors import InputError
from pipeline.core.types import DeadLetter, Partition
from storage.sql.damaged_rows import read_rows
from storage.sql.statements import Bounds, StreamChoice, of_streams, page_of, where_given
from storage.tables.stream import DeadLetterRow


@dataclass(frozen=True, slots=True)
class Kept:
    """Dead letter in the database. ``replayed_ns`` is None until it is replayed."""

    id: int
    letter: DeadLetter
    created_ns: int
    replayed_ns: int | None


def add(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    """Insert dead letters."""
    if letters:
        now = time.time_ns()
        connection.execute(
            insert(DeadLetterRow), [_values(letter) | {"created_ns": now} for letter in letters]
        )


def query(
    connection: Connection,
    *,
    stream: StreamChoice = None,
    reason: str | None = None,
    replayed: bool | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    limit: int | None = None,
) -> list[Kept]:
    """Return dead letters, newest first.

    Args:
        connection: A connection.
        stream: Name of the stream, None for all.
        reason: A word of ``pipeline.decode.REASONS``.
        replayed: Whether they were replayed.
        since_ns: Earliest time of arrival.
        until_ns: End of the arrivals, exclusive.
        limit: Largest number of dead letters.
    """
    bounds = Bounds(stream, since_ns, until_ns, limit=limit)
    return page(connection, bounds, reason=reason, replayed=replayed)


def page(
    connection: Connection, bounds: Bounds, *, reason: str | None = None, replayed: bool | None = None
) -> list[Kept]:
    """Return a part of the dead letters, newest first.

    Args:
        connection: a connection.
        bounds: the part; the range is that of their arrival, ``after`` is (id,).
        reason: only those with this reason.
        replayed: only those that were replayed, or were not.
    """
    row = DeadLetterRow
    was_replayed = row.replayed_ns.is_not(None) if replayed else row.replayed_ns.is_(None)
    statement = where_given(
        page_of(select(*row.__table__.columns), ((row.id, True),), bounds.after, bounds.limit),
        (bounds.stream, of_streams(row.stream, bounds.stream)),
        (reason, row.reason == reason),
        (replayed, was_replayed),
        (bounds.since_ns, row.created_ns >= (bounds.since_ns or 0)),
        (bounds.until_ns, row.created_ns < (bounds.until_ns or 0)),
    )
    return read_rows(connection, statement, DeadLetterRow.id, _from_row)


def get(connection: Connection, id: int) -> Kept:
    """Return the dead letter ``id``. Raises InputError if there is none."""
    row = connection.execute(
        select(*DeadLetterRow.__table__.columns).where(DeadLetterRow.id == id)
    ).one_or_none()
    if row is None:
        raise InputError(f"there is no dead letter {id}; `forewatch deadletters list` shows those there are")
    return _from_row(row)


def counts(connection: Connection, stream: StreamChoice = None) -> dict[str, int]:
    """Count dead letters that were not replayed, by reason."""
    statement = (
        select(DeadLetterRow.reason, func.count())
        .where(DeadLetterRow.replayed_ns.is_(None))
        .group_by(DeadLetterRow.reason)
    )
    if stream is not None:
        statement = statement.where(of_streams(DeadLetterRow.stream, stream))
    return {row[0]: row[1] for row in connection.execute(statement)}


def mark_replayed(connection: Connection, ids: Sequence[int]) -> None:
    """Mark dead letters as replayed: they stay visible, but are not replayed again."""
    now = time.time_ns()
    for start in range(0, len(ids), 1000):
        chosen = DeadLetterRow.id.in_(ids[start : start + 1000])
        connection.execute(update(DeadLetterRow).where(chosen).values(replayed_ns=now))


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` dead letters from before ``before_ns``, and return their number."""
    old = select(DeadLetterRow.id).where(DeadLetterRow.created_ns < before_ns).limit(limit)
    return connection.execute(delete(DeadLetterRow).where(DeadLetterRow.id.in_(old))).rowcount


def _values(letter: DeadLetter) -> dict[str, Any]:
    return {
        "stream": letter.stream,
        "topic": letter.partition.topic,
        "partition": letter.partition.number,
        "offset": letter.offset,
        "timestamp_ns": letter.timestamp_ns,
        "key": letter.key,
        "value": letter.value,
        "headers": [
            [name, None if value is None else b64encode(value).decode()] for name, value in letter.headers
        ],
        "reason": letter.reason,
        "detail": letter.detail,
    }


def _from_row(row: Row[Any]) -> Kept:
    headers = [(name, None if value is None else b64decode(value)) for name, value in row.headers]
    partition = Partition(row.topic, row.partition)
    letter = DeadLetter(
        row.stream,
        partition,
        row.offset,
        row.timestamp_ns,
        row.key,
        row.value,
        headers,
        row.reason,
        row.detail,
    )
    return Kept(row.id, letter, row.created_ns, row.replayed_ns)
