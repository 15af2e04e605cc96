"""Notifications and deliveries: queries for people and metrics, and deletion of old rows.

Rows are added and changed by ``storage.alerting.delivery_queue``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, exists, func, select

from storage.alerting.states import DeliveryState
from storage.sql.statements import Bounds, id_begins_with, in_parts, of_streams, page_of, where_given
from storage.tables.alerting import (
    AlertRow,
    DeliveryAttemptRow,
    DeliveryQueueRow,
    DeliveryRow,
    NotificationRow,
)

MAX_DELIVERIES_OF_A_PREFIX = 6


@dataclass(slots=True)
class Notification:
    """One message about an alert; ``events`` is the number of events of the outbox that it reports."""

    id: UUID
    alert_id: UUID
    stream: str
    queue: str
    sequence: int
    kind: str
    events: int
    body: str
    created_ns: int


@dataclass(slots=True)
class Delivery:
    """One notification on its way to one endpoint.

    ``repeats`` counts attempts after one whose answer was lost: the receiver may know the message.
    """

    id: UUID
    notification_id: UUID
    alert_id: UUID
    endpoint: str
    queue: str
    sequence: int
    kind: str
    state: DeliveryState
    reason: str | None
    attempts: int
    repeats: int
    created_ns: int
    finished_ns: int | None

    def __post_init__(self) -> None:
        self.state = DeliveryState(self.state)


_DELIVERY_COLUMNS = [getattr(DeliveryRow, name) for name in Delivery.__slots__]


def query(
    connection: Connection,
    *,
    endpoint: str | None = None,
    state: str | None = None,
    alert_id: UUID | None = None,
    since_ns: int | None = None,
    limit: int | None = None,
) -> list[Delivery]:
    """Return deliveries, the newest first; filters that are None do not apply."""
    bounds = Bounds(since_ns=since_ns, limit=limit)
    return page(connection, bounds, endpoint=endpoint, state=state, alert_id=alert_id)


def page(
    connection: Connection,
    bounds: Bounds,
    *,
    endpoint: str | None = None,
    state: str | None = None,
    alert_id: UUID | None = None,
) -> list[Delivery]:
    """Return a part of the deliveries, the newest first.

    Args:
        connection: a connection.
        bounds: the part; ``after`` is (created, sequence, endpoint, id).
        endpoint: only deliveries to this endpoint.
        state: only deliveries in this ``DeliveryState``.
        alert_id: only deliveries of this alert.
    """
    row = DeliveryRow
    order = ((row.created_ns, True), (row.sequence, True), (row.endpoint, False), (row.id, False))
    of_stream = select(AlertRow.alert_id).where(of_streams(AlertRow.stream, bounds.stream))
    statement = where_given(
        page_of(select(*_DELIVERY_COLUMNS), order, bounds.after, bounds.limit),
        (bounds.stream, row.alert_id.in_(of_stream)),
        (endpoint, row.endpoint == endpoint),
        (state, row.state == state),
        (alert_id, row.alert_id == alert_id),
        (bounds.since_ns, row.created_ns >= (bounds.since_ns or 0)),
        (bounds.until_ns, row.created_ns < (bounds.until_ns or 0)),
    )
    return [Delivery(*found) for found in connection.execute(statement)]


def with_prefix(connection: Connection, digits: str) -> list[Delivery]:
    """Return up to six deliveries whose id begins with these 1 to 32 hex digits."""
    statement = select(*_DELIVERY_COLUMNS).where(id_begins_with(DeliveryRow.id, digits))
    return [Delivery(*row) for row in connection.execute(statement.limit(MAX_DELIVERIES_OF_A_PREFIX))]


def stream_of(connection: Connection, delivery: Delivery) -> str | None:
    """Return the stream of the alert of a delivery."""
    return connection.scalar(select(AlertRow.stream).where(AlertRow.alert_id == delivery.alert_id))


def attempts_of(connection: Connection, delivery: UUID) -> list[dict[str, Any]]:
    """Return every attempt of a delivery, oldest first."""
    columns = DeliveryAttemptRow.__table__.columns
    statement = (
        select(*columns).where(DeliveryAttemptRow.delivery_id == delivery).order_by(DeliveryAttemptRow.id)
    )
    return [dict(row._mapping) for row in connection.execute(statement)]


def body_of(connection: Connection, notification: UUID) -> str | None:
    """Return the payload of a notification; None if it is no longer kept."""
    return connection.scalar(select(NotificationRow.body).where(NotificationRow.id == notification))


def last_body(connection: Connection, alert_id: UUID) -> str | None:
    """Return the payload of the newest notification of an alert, or None."""
    newest = (
        select(NotificationRow.body)
        .where(NotificationRow.alert_id == alert_id)
        .order_by(NotificationRow.sequence.desc())
        .limit(1)
    )
    return connection.scalar(newest)


def next_attempt_ns(connection: Connection, endpoint: str, queue: str) -> int | None:
    """Return when the head of a queue is tried next."""
    return connection.scalar(
        select(DeliveryQueueRow.due_ns).where(
            DeliveryQueueRow.endpoint == endpoint, DeliveryQueueRow.queue == queue
        )
    )


def count_by_state(connection: Connection) -> dict[tuple[str, str, str | None], int]:
    """Count all deliveries by (endpoint, state, reason)."""
    by = (DeliveryRow.endpoint, DeliveryRow.state, DeliveryRow.reason)
    return {(e, s, r): int(n) for e, s, r, n in connection.execute(select(*by, func.count()).group_by(*by))}


def count_notified_events(connection: Connection) -> int:
    """Count the events of the outbox that notifications report."""
    return int(connection.scalar(select(func.coalesce(func.sum(NotificationRow.events), 0))) or 0)


def backlog(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return endpoint → (pending deliveries, creation time of the oldest in ns)."""
    statement = select(DeliveryRow.endpoint, func.count(), func.min(DeliveryRow.created_ns)).where(
        DeliveryRow.state == DeliveryState.PENDING
    )
    rows = connection.execute(statement.group_by(DeliveryRow.endpoint))
    return {endpoint: (int(count), int(oldest)) for endpoint, count, oldest in rows}


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` finished deliveries that are older, with their attempts and notifications.

    Returns the number of deleted rows.
    """
    old = (
        select(DeliveryRow.id)
        .where(DeliveryRow.created_ns < before_ns, DeliveryRow.state != DeliveryState.PENDING)
        .limit(limit)
    )
    gone = 0
    for part in in_parts(list(connection.scalars(old))):
        attempts = delete(DeliveryAttemptRow).where(DeliveryAttemptRow.delivery_id.in_(part))
        gone += connection.execute(attempts).rowcount
        gone += connection.execute(delete(DeliveryRow).where(DeliveryRow.id.in_(part))).rowcount
    used = exists().where(
        DeliveryRow.alert_id == NotificationRow.alert_id, DeliveryRow.notification_id == NotificationRow.id
    )
    orphans = select(NotificationRow.id).where(NotificationRow.created_ns < before_ns, ~used).limit(limit)
    return gone + connection.execute(delete(NotificationRow).where(NotificationRow.id.in_(orphans))).rowcount
