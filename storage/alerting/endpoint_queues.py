"""Changes of all delivery queues of one endpoint."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, exists, select, update

from storage.alerting.states import DeliveryReason, DeliveryState
from storage.tables.alerting import DeliveryQueueRow, DeliveryRow, NotificationRow


def retry_now(connection: Connection, endpoint: str, now_ns: int) -> int:
    """Make everything due that waits for its next attempt; returns the number of queues."""
    waiting = (
        DeliveryQueueRow.endpoint == endpoint,
        DeliveryQueueRow.owner.is_(None),
        DeliveryQueueRow.due_ns > now_ns,
    )
    return connection.execute(update(DeliveryQueueRow).where(*waiting).values(due_ns=now_ns)).rowcount


def finish_pending(
    connection: Connection,
    endpoint: str,
    state: DeliveryState,
    reason: DeliveryReason,
    now_ns: int,
    streams: Collection[str] | None = None,
) -> int:
    """Finish the pending deliveries of an endpoint that no worker has claimed; returns how many.

    Args:
        connection: A transaction.
        endpoint: Name of the endpoint.
        state: The state of the deliveries afterwards.
        reason: Why they are finished.
        now_ns: The time, ns since the epoch.
        streams: Only deliveries of these streams; None for all.
    """
    claimed_by_worker = exists().where(
        DeliveryQueueRow.endpoint == DeliveryRow.endpoint,
        DeliveryQueueRow.queue == DeliveryRow.queue,
        DeliveryQueueRow.owner.is_not(None),
    )
    waiting = [
        DeliveryRow.endpoint == endpoint,
        DeliveryRow.state == DeliveryState.PENDING,
        ~claimed_by_worker,
    ]
    if streams is not None:
        waiting.append(
            exists().where(
                NotificationRow.id == DeliveryRow.notification_id, NotificationRow.stream.in_(streams)
            )
        )
    return connection.execute(
        update(DeliveryRow).where(*waiting).values(state=state, reason=reason, finished_ns=now_ns)
    ).rowcount


def pending_endpoints(connection: Connection) -> list[str]:
    """Return the endpoints that have queues with something to deliver."""
    return list(
        connection.scalars(
            select(DeliveryQueueRow.endpoint).where(DeliveryQueueRow.due_ns.is_not(None)).distinct()
        )
    )
