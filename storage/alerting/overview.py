"""Counts of alerts, messages and deliveries over all streams."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import InstrumentedAttribute

from storage.alerting.states import AlertState, DeliveryState
from storage.tables.alerting import AlertRow, DeliveryRow, NotificationRow


class AlertTotals(NamedTuple):
    """Counts over all streams."""

    open_alerts: int
    messages: int
    pages: int
    deliveries_waiting: int


def alert_totals(connection: Connection, since_ns: int) -> AlertTotals:
    """Return the counts; messages and pages are those since ``since_ns``."""
    paged = (AlertRow.created_ns >= since_ns, AlertRow.urgency == "page", AlertRow.sent_ns.is_not(None))
    return AlertTotals(
        _count(connection, AlertRow.alert_id, AlertRow.state == AlertState.OPEN),
        _count(connection, NotificationRow.id, NotificationRow.created_ns >= since_ns),
        _count(connection, AlertRow.alert_id, *paged),
        _count(connection, DeliveryRow.id, DeliveryRow.state == DeliveryState.PENDING.value),
    )


def _count(connection: Connection, column: InstrumentedAttribute[Any], *conditions: Any) -> int:
    return int(connection.scalar(select(func.count(column)).where(*conditions)) or 0)
