"""Endpoints as every delivery process knows them, and which of those processes are alive.

A worker shows that it lives by counting up its ``beat``. Whether another one is dead is judged by watching,
on one's own monotonic clock, that its beat stands still: no clock time is compared between processes, so a
clock that jumps takes no lane from a living worker.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, select, update

from storage.sql.column_types import insert
from storage.tables.alerting import DeliveryWorkerRow, EndpointStateRow


@dataclass(slots=True)
class EndpointState:
    """Since when an endpoint only fails, until when it wants quiet, and whether it is disabled, with the
    reason."""

    endpoint: str
    disabled_ns: int | None = None
    reason: str | None = None
    failing_ns: int | None = None
    quiet_until_ns: int | None = None
    delivered_ns: int | None = None


_COLUMNS = [getattr(EndpointStateRow, name) for name in EndpointState.__slots__]


def states(connection: Connection) -> dict[str, EndpointState]:
    return {row.endpoint: EndpointState(*row) for row in connection.execute(select(*_COLUMNS))}


def save(connection: Connection, state: EndpointState) -> None:
    statement = insert(connection, EndpointStateRow).values(asdict(state))
    changed = {column.name: column for column in statement.excluded if column.name != "endpoint"}
    connection.execute(statement.on_conflict_do_update(index_elements=["endpoint"], set_=changed))


def enable(connection: Connection, endpoint: str) -> bool:
    """Forget what an endpoint did; False if it was not disabled."""
    which = (EndpointStateRow.endpoint == endpoint, EndpointStateRow.disabled_ns.is_not(None))
    return (
        connection.execute(
            update(EndpointStateRow).where(*which).values(disabled_ns=None, reason=None, failing_ns=None)
        ).rowcount
        > 0
    )


def beat(connection: Connection, worker: str, count: int, now_ns: int) -> None:
    """The worker lives: its row is there, with this count."""
    statement = insert(connection, DeliveryWorkerRow).values(id=worker, beat=count, started_ns=now_ns)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["id"], set_={"beat": statement.excluded.beat})
    )


def beats(connection: Connection) -> dict[str, int]:
    return {
        row.id: row.beat for row in connection.execute(select(DeliveryWorkerRow.id, DeliveryWorkerRow.beat))
    }


def bury(connection: Connection, workers: Collection[str]) -> None:
    """Workers that are gone."""
    connection.execute(delete(DeliveryWorkerRow).where(DeliveryWorkerRow.id.in_(list(workers))))
