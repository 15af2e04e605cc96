"""State of endpoints shared by all delivery processes, and heartbeats of those processes.

A worker increments its ``beat`` while it runs. Another process takes it for dead once, on its own monotonic
clock, the beat has not changed for long enough. No clock time is compared between processes, so a clock that
jumps takes no queue from a running worker.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, select, update

from storage.sql.column_types import insert
from storage.tables.alerting import DeliveryWorkerRow, EndpointStateRow


@dataclass(slots=True)
class EndpointState:
    """State of one endpoint.

    ``failing_ns``: since when every attempt fails. ``quiet_until_ns``: when the receiver accepts the next
    attempt. ``disabled_ns`` and ``reason``: since when nothing is sent, and why.
    """

    endpoint: str
    disabled_ns: int | None = None
    reason: str | None = None
    failing_ns: int | None = None
    quiet_until_ns: int | None = None
    delivered_ns: int | None = None


_COLUMNS = [getattr(EndpointStateRow, name) for name in EndpointState.__slots__]


def states(connection: Connection) -> dict[str, EndpointState]:
    """Return the state of every endpoint that has one, by name."""
    return {row.endpoint: EndpointState(*row) for row in connection.execute(select(*_COLUMNS))}


def save(connection: Connection, state: EndpointState) -> None:
    """Insert or overwrite the state of an endpoint."""
    statement = insert(connection, EndpointStateRow).values(asdict(state))
    changed = {column.name: column for column in statement.excluded if column.name != "endpoint"}
    connection.execute(statement.on_conflict_do_update(index_elements=["endpoint"], set_=changed))


def enable(connection: Connection, endpoint: str) -> bool:
    """Enable a disabled endpoint; returns False if it was not disabled."""
    which = (EndpointStateRow.endpoint == endpoint, EndpointStateRow.disabled_ns.is_not(None))
    return (
        connection.execute(
            update(EndpointStateRow).where(*which).values(disabled_ns=None, reason=None, failing_ns=None)
        ).rowcount
        > 0
    )


def heartbeat(connection: Connection, worker: str, count: int, now_ns: int) -> None:
    """Insert or overwrite the heartbeat of a worker."""
    statement = insert(connection, DeliveryWorkerRow).values(id=worker, beat=count, started_ns=now_ns)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["id"], set_={"beat": statement.excluded.beat})
    )


def heartbeats(connection: Connection) -> dict[str, int]:
    """Return worker → its last heartbeat count."""
    return {
        row.id: row.beat for row in connection.execute(select(DeliveryWorkerRow.id, DeliveryWorkerRow.beat))
    }


def remove_workers(connection: Connection, workers: Collection[str]) -> None:
    """Delete the heartbeats of workers that have ended."""
    connection.execute(delete(DeliveryWorkerRow).where(DeliveryWorkerRow.id.in_(list(workers))))
