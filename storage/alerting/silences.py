"""Silences that people add from the command line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert, or_, select, update

from storage.sql.statements import Bounds, id_begins_with, of_streams, page_of, where_given
from storage.tables.alerting import SilenceRow


@dataclass(slots=True)
class ManualSilence:
    """A time in which matching alerts are kept but not sent: ``starts_ns`` ≤ t < ``ends_ns``.

    ``stream`` is None for a silence of every stream.
    """

    id: UUID
    stream: str | None
    match: dict[str, Any]
    starts_ns: int
    ends_ns: int
    author: str
    comment: str
    created_ns: int


_COLUMNS = [getattr(SilenceRow, name) for name in ManualSilence.__slots__]


def add(connection: Connection, silence: ManualSilence) -> None:
    """Insert a silence."""
    connection.execute(insert(SilenceRow).values(asdict(silence)))


def get(connection: Connection, id_: UUID) -> ManualSilence | None:
    """Return a silence, None if there is none."""
    row = connection.execute(select(*_COLUMNS).where(SilenceRow.id == id_)).one_or_none()
    return None if row is None else ManualSilence(*row)


def in_force(connection: Connection, stream: str, now_ns: int) -> list[ManualSilence]:
    """Return the silences that are in force now in ``stream``."""
    in_force_now = (SilenceRow.starts_ns <= now_ns, SilenceRow.ends_ns > now_ns)
    statement = select(*_COLUMNS).where(
        *in_force_now, or_(SilenceRow.stream == stream, SilenceRow.stream.is_(None))
    )
    return [ManualSilence(*row) for row in connection.execute(statement.order_by(SilenceRow.ends_ns))]


def query(
    connection: Connection, *, now_ns: int | None = None, limit: int | None = None
) -> list[ManualSilence]:
    """Return silences, the latest end first; with ``now_ns`` those that have not ended."""
    return page(connection, Bounds(limit=limit), now_ns)


def page(connection: Connection, bounds: Bounds, now_ns: int | None = None) -> list[ManualSilence]:
    """Return a part of the silences, the latest end first.

    Args:
        connection: a connection.
        bounds: the part; the range is that of silences that overlap it, ``after`` is (end, id).
        now_ns: only silences that have not ended then.
    """
    order = ((SilenceRow.ends_ns, True), (SilenceRow.id, False))
    statement = where_given(
        page_of(select(*_COLUMNS), order, bounds.after, bounds.limit),
        (bounds.stream, or_(of_streams(SilenceRow.stream, bounds.stream), SilenceRow.stream.is_(None))),
        (now_ns, SilenceRow.ends_ns > (now_ns or 0)),
        (bounds.since_ns, SilenceRow.ends_ns > (bounds.since_ns or 0)),
        (bounds.until_ns, SilenceRow.starts_ns < (bounds.until_ns or 0)),
    )
    return [ManualSilence(*row) for row in connection.execute(statement)]


def expire(connection: Connection, digits: str, now_ns: int) -> list[UUID]:
    """End the silences whose id begins with these 1 to 32 hex digits.

    Returns those that had not ended already.
    """
    ended = (
        update(SilenceRow)
        .where(id_begins_with(SilenceRow.id, digits), SilenceRow.ends_ns > now_ns)
        .values(ends_ns=now_ns)
        .returning(SilenceRow.id)
    )
    return list(connection.scalars(ended))
