"""Parts of backfills on a cluster: their states, and what they have found."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, func, select, update

from pipeline.core.types import Counts
from storage.sql.column_types import insert
from storage.tables.stream import BackfillAnomalyRow, BackfillShardRow, LateRow


@dataclass(frozen=True, slots=True)
class StoredShard:
    """A part that has begun.

    Counts, anomalies, series and seconds are those of a part that is done.
    """

    shard: int
    first_late_id: int
    done: bool
    counts: Counts
    anomalies: int
    series: int
    seconds: float


def begin(connection: Connection, run: str, shard: int, stream: str) -> StoredShard:
    """Return the part, as it was stored if it has begun before.

    Args:
        connection: The open transaction.
        run: Id of the backfill.
        shard: Number of the part.
        stream: Name of the stream.
    """
    newest = connection.execute(select(func.coalesce(func.max(LateRow.id), 0))).scalar_one()
    values = {
        "run": run,
        "shard": shard,
        "stream": stream,
        "first_late_id": newest,
        "counts": asdict(Counts()),
        "anomalies": 0,
        "series": 0,
        "seconds": 0.0,
        "created_ns": time.time_ns(),
        "done_ns": None,
    }
    connection.execute(insert(connection, BackfillShardRow).values(values).on_conflict_do_nothing())
    statement = select(*BackfillShardRow.__table__.columns).where(*_is(run, shard))
    return _stored(connection.execute(statement).one())


def finish(connection: Connection, run: str, done: StoredShard) -> None:
    """Mark a part as done.

    The transaction holds the ownership of its partitions.
    """
    values = {
        "counts": asdict(done.counts),
        "anomalies": done.anomalies,
        "series": done.series,
        "seconds": done.seconds,
        "done_ns": time.time_ns(),
    }
    connection.execute(update(BackfillShardRow).where(*_is(run, done.shard)).values(values))
    row = BackfillAnomalyRow
    connection.execute(delete(row).where(row.run == run, row.shard == done.shard))


def of_run(connection: Connection, run: str) -> list[StoredShard]:
    """Return the parts of a backfill that have begun."""
    row = BackfillShardRow
    statement = select(*row.__table__.columns).where(row.run == run).order_by(row.shard)
    return [_stored(one) for one in connection.execute(statement)]


def add_anomalies(connection: Connection, run: str, shard: int, ids: Collection[UUID]) -> None:
    """Note anomalies that a part has found; those noted before are left.

    Args:
        connection: The open transaction.
        run: Id of the backfill.
        shard: Number of the part.
        ids: Ids of the anomalies.
    """
    if ids:
        rows = [{"run": run, "shard": shard, "anomaly": one} for one in ids]
        connection.execute(insert(connection, BackfillAnomalyRow).on_conflict_do_nothing(), rows)


def anomalies_of(connection: Connection, run: str, shard: int) -> set[UUID]:
    """Return the anomalies that a part has found so far."""
    row = BackfillAnomalyRow
    statement = select(row.anomaly).where(row.run == run, row.shard == shard)
    return set(connection.execute(statement).scalars())


def forget(connection: Connection, runs: Sequence[str]) -> None:
    """Delete what is stored about backfills; their results stay."""
    for table in (BackfillAnomalyRow, BackfillShardRow):
        connection.execute(delete(table).where(table.run.in_(runs)))


def runs_before(connection: Connection, before_ns: int) -> list[str]:
    """Return the backfills whose parts have all begun before ``before_ns``."""
    row = BackfillShardRow
    statement = select(row.run).group_by(row.run).having(func.max(row.created_ns) < before_ns)
    return list(connection.execute(statement).scalars())


def _is(run: str, shard: int) -> tuple[Any, ...]:
    return BackfillShardRow.run == run, BackfillShardRow.shard == shard


def _stored(row: Row[Any]) -> StoredShard:
    return StoredShard(
        row.shard,
        row.first_late_id,
        row.done_ns is not None,
        Counts(**row.counts),
        row.anomalies,
        row.series,
        row.seconds,
    )
