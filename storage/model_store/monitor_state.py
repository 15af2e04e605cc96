"""State of the monitors: detection power by series, and the drift monitor's reference by partition.

A lost row is measured again.
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
    """The drift monitor's state of one partition.

    ``quiet_until_ns``: event time until which no drift is reported.
    """

    stream: str
    partition: Partition
    state: bytes
    quiet_until_ns: int | None
    saved_ns: int


_KEY = ("stream", "series_key", "channel", "kind")
#: Column of each figure that has another name in the table.
POWER_COLUMNS = {"minimum_size": "smallest", "detected": "caught", "robust_deviation": "spread"}
_FIGURES = [getattr(PowerRow, POWER_COLUMNS.get(one.name, one.name)) for one in fields(Power)]


def power_as_row(one: Power) -> dict[str, Any]:
    """Return the figures by the names of their columns."""
    return {POWER_COLUMNS.get(name, name): value for name, value in asdict(one).items()}


def save_power(
    connection: Connection, stream: str, found: Iterable[Power], model_version: str, found_ns: int
) -> None:
    """Replace the figures of the series in ``found``.

    Args:
        connection: a transaction.
        stream: name of the stream.
        found: figures by series, channel and kind of change.
        model_version: the model that was measured.
        found_ns: time of the measurement.
    """
    of_all = {"stream": stream, "model_version": model_version, "found_ns": found_ns}
    rows: list[dict[str, Any]] = [
        power_as_row(one) | of_all | {"series_key": short_key(one.series)} for one in found
    ]
    if not rows:
        return
    statement = insert(connection, PowerRow)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in _KEY}
    connection.execute(statement.on_conflict_do_update(index_elements=list(_KEY), set_=changed), rows)


def power(connection: Connection, stream: str, model_version: str | None = None) -> list[Power]:
    """Return the last figures by series, only those of ``model_version`` if given."""
    statement = (
        select(*_FIGURES)
        .where(PowerRow.stream == stream)
        .order_by(PowerRow.series, PowerRow.channel, PowerRow.kind)
    )
    if model_version is not None:
        statement = statement.where(PowerRow.model_version == model_version)
    return [Power(*row) for row in connection.execute(statement)]


def prune_power(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` figures measured before ``before_ns``; return their number."""
    return delete_older(connection, PowerRow.found_ns, before_ns, limit)


def save_drift(connection: Connection, one: DriftState) -> None:
    """Replace the state of the partition."""
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
    """Return the states of all partitions of the stream, from every process."""
    row = DriftStateRow
    found = connection.execute(select(*row.__table__.columns).where(row.stream == stream))
    return [
        DriftState(stream, Partition(one.topic, one.partition), one.state, one.quiet_until_ns, one.saved_ns)
        for one in found
    ]


def prune_drift(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` states last saved before ``before_ns``; return their number.

    They belong to removed streams and partitions.
    """
    return delete_older(connection, DriftStateRow.saved_ns, before_ns, limit)
