"""Counts of alerts, messages and deliveries over some streams."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute

from storage.alerting.states import AlertState, DeliveryState
from storage.sql.statements import StreamChoice, of_streams
from storage.tables.alerting import AlertRow, DeliveryRow, NotificationRow


class AlertTotals(NamedTuple):
    """Counts over some streams."""

    open_alerts: int
    messages: int
    pages: int
    deliveries_waiting: int


class StreamTotals(NamedTuple):
    """Counts of one stream since some time."""

    alerts: int = 0
    pages: int = 0
    messages: int = 0


def totals_of_streams(
    connection: Connection, since_ns: int, streams: StreamChoice = None
) -> dict[str, StreamTotals]:
    """Return the counts of streams that have an alert or a message."""
    paged = and_(AlertRow.urgency == "page", AlertRow.sent_ns.is_not(None))
    made = connection.execute(
        select(AlertRow.stream, func.count(), func.count().filter(paged))
        .where(AlertRow.created_ns >= since_ns, of_streams(AlertRow.stream, streams))
        .group_by(AlertRow.stream)
    )
    found = {stream: StreamTotals(alerts, pages) for stream, alerts, pages in made}
    sent = connection.execute(
        select(NotificationRow.stream, func.count())
        .where(NotificationRow.created_ns >= since_ns, of_streams(NotificationRow.stream, streams))
        .group_by(NotificationRow.stream)
    )
    for stream, messages in sent:
        found[stream] = found.get(stream, StreamTotals())._replace(messages=messages)
    return found


def alert_totals(connection: Connection, since_ns: int, streams: StreamChoice = None) -> AlertTotals:
    """Return the counts; messages and pages are those since ``since_ns``."""
    of_seen = of_streams(AlertRow.stream, streams)
    paged = (AlertRow.created_ns >= since_ns, AlertRow.urgency == "page", AlertRow.sent_ns.is_not(None))
    waiting = [DeliveryRow.state == DeliveryState.PENDING.value]
    if streams is not None:
        waiting.append(DeliveryRow.alert_id.in_(select(AlertRow.alert_id).where(of_seen)))
    return AlertTotals(
        _count(connection, AlertRow.alert_id, AlertRow.state == AlertState.OPEN, of_seen),
        _count(
            connection,
            NotificationRow.id,
            NotificationRow.created_ns >= since_ns,
            of_streams(NotificationRow.stream, streams),
        ),
        _count(connection, AlertRow.alert_id, *paged, of_seen),
        _count(connection, DeliveryRow.id, *waiting),
    )


def delivery_marks(connection: Connection) -> tuple[int, int | None]:
    """Return the number of pending deliveries and the time of the newest one."""
    pending = DeliveryRow.state == literal(DeliveryState.PENDING.value, literal_execute=True)
    newest = connection.scalar(select(func.max(DeliveryRow.created_ns)))
    return _count(connection, DeliveryRow.id, pending), newest


def _count(connection: Connection, column: InstrumentedAttribute[Any], *conditions: Any) -> int:
    return int(connection.scalar(select(func.count(column)).where(*conditions)) or 0)
