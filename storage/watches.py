"""What the engine's eyes know: detection power by series, and what is usual for the eye on drift. Lost, it is only measured again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

from sqlalchemy import Connection, delete, select, tuple_

from pipeline.records import Partition
from storage.tables_retraining import DriftStateRow, PowerRow
from storage.types import insert


@dataclass(frozen=True, slots=True)
class Caught:
    """One kind of change on one channel of one series (see ``PowerRow``)."""

    stream: str
    series: str
    channel: str
    kind: str
    smallest: float | None
    delay: int | None
    caught: float
    spread: float
    model_version: str
    found_ns: int


@dataclass(frozen=True, slots=True)
class DriftState:
    """What is known of the series of one partition, and until when (event time) no drift is reported again."""

    stream: str
    partition: Partition
    state: bytes
    quiet_until_ns: int | None
    saved_ns: int


_KEY = ("stream", "series", "channel", "kind")
_COLUMNS = [getattr(PowerRow, one.name) for one in fields(Caught)]


def save_power(connection: Connection, found: Iterable[Caught]) -> None:
    """Keep these figures instead of older ones of the same series."""
    rows = [asdict(one) for one in found]
    if not rows:
        return
    statement = insert(connection, PowerRow)
    changed = {one.name: statement.excluded[one.name] for one in fields(Caught) if one.name not in _KEY}
    connection.execute(statement.on_conflict_do_update(index_elements=list(_KEY), set_=changed), rows)


def power(connection: Connection, stream: str) -> list[Caught]:
    """The last figures, by series."""
    statement = select(*_COLUMNS).where(PowerRow.stream == stream).order_by(PowerRow.series, PowerRow.channel, PowerRow.kind)
    return [Caught(*row) for row in connection.execute(statement)]


def prune_power(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` figures that were found before ``before_ns``; returns how many."""
    key = tuple_(*(getattr(PowerRow, name) for name in _KEY))
    old = select(*(getattr(PowerRow, name) for name in _KEY)).where(PowerRow.found_ns < before_ns).limit(limit)
    return connection.execute(delete(PowerRow).where(key.in_(old))).rowcount


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
    connection.execute(statement.on_conflict_do_update(index_elements=["stream", "topic", "partition"], set_=changed))


def drift(connection: Connection, stream: str) -> list[DriftState]:
    """What is known of all partitions of the stream, whoever saved it."""
    row = DriftStateRow
    found = connection.execute(select(*row.__table__.columns).where(row.stream == stream))
    return [DriftState(stream, Partition(one.topic, one.partition), one.state, one.quiet_until_ns, one.saved_ns) for one in found]
