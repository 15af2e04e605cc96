"""What the engine's eyes know: detection power by series, and what is usual for the eye on drift.

Lost, it is only measured again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, select

from pipeline.core.types import Partition, Power
from storage.sql.column_types import delete_older, insert, short_key
from storage.tables.models import DriftStateRow, PowerRow


@dataclass(frozen=True, slots=True)
class DriftState:
    """What is known of the series of one partition, and until when (event time) no drift is reported again."""

    stream: str
    partition: Partition
    state: bytes
    quiet_until_ns: int | None
    saved_ns: int


_KEY = ("stream", "series_key", "channel", "kind")
_FIGURES = [getattr(PowerRow, one.name) for one in fields(Power)]


def save_power(
    connection: Connection, stream: str, found: Iterable[Power], model_version: str, found_ns: int
) -> None:
    """Keep these figures, of that model at that time, instead of older ones of the same series."""
    of_all = {"stream": stream, "model_version": model_version, "found_ns": found_ns}
    rows: list[dict[str, Any]] = [
        asdict(one) | of_all | {"series_key": short_key(one.series)} for one in found
    ]
    if not rows:
        return
    statement = insert(connection, PowerRow)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in _KEY}
    connection.execute(statement.on_conflict_do_update(index_elements=list(_KEY), set_=changed), rows)


def power(connection: Connection, stream: str, model_version: str | None = None) -> list[Power]:
    """The last figures, by series; only those of ``model_version`` where it is given."""
    statement = (
        select(*_FIGURES)
        .where(PowerRow.stream == stream)
        .order_by(PowerRow.series, PowerRow.channel, PowerRow.kind)
    )
    if model_version is not None:
        statement = statement.where(PowerRow.model_version == model_version)
    return [Power(*row) for row in connection.execute(statement)]


def prune_power(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` figures that were found before ``before_ns``; returns how many."""
    return delete_older(connection, PowerRow.found_ns, before_ns, limit)


def save_drift(connection: Connection, one: DriftState) -> None:
    """Replace what was known of the partition."""
    statement = insert(connection, DriftStateRow).values(
        stream=one.stream,
        topic=one.partition.topic,
        partition=one.partition.number,
        state=one.state,
        quiet_until_ns=one.quiet_until_ns,
        saved_ns=one.saved_ns,
    )
    changed = {name: statement.excluded[name] for name in ("state", "quiet_until_ns", "saved_ns")}
    connection.execute(
        statement.on_conflict_do_update(index_elements=["stream", "topic", "partition"], set_=changed)
    )


def drift(connection: Connection, stream: str) -> list[DriftState]:
    """What is known of all partitions of the stream, whoever saved it."""
    row = DriftStateRow
    found = connection.execute(select(*row.__table__.columns).where(row.stream == stream))
    return [
        DriftState(stream, Partition(one.topic, one.partition), one.state, one.quiet_until_ns, one.saved_ns)
        for one in found
    ]


def prune_drift(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` states that nobody has saved again since ``before_ns``: of streams and
    partitions that are gone. Returns how many.
    """
    return delete_older(connection, DriftStateRow.saved_ns, before_ns, limit)
