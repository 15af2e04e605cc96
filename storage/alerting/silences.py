"""Silences that somebody set by hand, from the command line or the dashboard."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert, or_, select, update

from storage.tables.alerting import SilenceRow


@dataclass(slots=True)
class Silence:
    """What matches ``match`` is kept but not sent from ``starts_ns`` until ``ends_ns``; ``stream`` None: in
    every stream.
    """

    id: UUID
    stream: str | None
    match: dict[str, Any]
    starts_ns: int
    ends_ns: int
    author: str
    comment: str
    created_ns: int


_COLUMNS = [getattr(SilenceRow, name) for name in Silence.__slots__]


def add(connection: Connection, silence: Silence) -> None:
    connection.execute(insert(SilenceRow).values(asdict(silence)))


def in_force(connection: Connection, stream: str, now_ns: int) -> list[Silence]:
    """Those that hold now in ``stream``."""
    holds = (SilenceRow.starts_ns <= now_ns, SilenceRow.ends_ns > now_ns)
    statement = select(*_COLUMNS).where(*holds, or_(SilenceRow.stream == stream, SilenceRow.stream.is_(None)))
    return [Silence(*row) for row in connection.execute(statement.order_by(SilenceRow.ends_ns))]


def query(connection: Connection, *, now_ns: int | None = None, limit: int | None = None) -> list[Silence]:
    """Silences by their end, the latest first; with ``now_ns`` those that are not over."""
    statement = select(*_COLUMNS).order_by(SilenceRow.ends_ns.desc(), SilenceRow.id).limit(limit)
    if now_ns is not None:
        statement = statement.where(SilenceRow.ends_ns > now_ns)
    return [Silence(*row) for row in connection.execute(statement)]


def expire(connection: Connection, prefix: str, now_ns: int) -> list[UUID]:
    """End silences whose id begins with the hex digits ``prefix``; returns those that were not over already."""
    within = SilenceRow.id.between(UUID(prefix.ljust(32, "0")), UUID(prefix.ljust(32, "f")))
    ended = (
        update(SilenceRow)
        .where(within, SilenceRow.ends_ns > now_ns)
        .values(ends_ns=now_ns)
        .returning(SilenceRow.id)
    )
    return list(connection.scalars(ended))
