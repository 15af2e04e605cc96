"""Alerts, and their acknowledgement."""

from __future__ import annotations

from dataclasses import asdict
from time import time_ns
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel, Field

from pipeline.access import audited_changes
from pipeline.api.context import ApiContext, Context, ListFilter, Page
from pipeline.api.direct_answers import api_router, shared
from pipeline.api.entity_tags import IfMatch, require_match, tag_of
from pipeline.api.routes.deliveries import DeliveryItem, delivery_item
from pipeline.core.errors import InputError
from pipeline.core.iso_times import show_time
from pipeline.services.anomaly_text import finite
from pipeline.services.reviews import acknowledge
from storage.alerting import alerts, deliveries
from storage.alerting.alerts import AlertRecord
from storage.alerting.states import AlertState

router = api_router(tags=["alerts"])


class AlertItem(BaseModel):
    """One alert: anomalies of a series or group, or a fault."""

    id: UUID
    stream: str
    kind: str
    rule: str
    group: str
    labels: dict[str, str]
    state: AlertState
    outcome: str | None
    urgency: str
    severity: str
    surprise: float | None
    count: int
    open_count: int
    suppressed_by: str | None
    flapping: bool
    notified: list[str]
    opened: str | None
    ended: str | None
    resolved: str | None
    acknowledged: str | None
    acknowledged_by: str | None


class AlertDetail(AlertItem):
    """One alert with its anomalies, the most surprising first, and its deliveries."""

    anomalies: list[UUID]
    deliveries: list[DeliveryItem]


class AcknowledgeRequest(BaseModel):
    """Person who acknowledges."""

    author: str = Field("api", min_length=1, max_length=200)


class AlertFilter(ListFilter):
    """Alerts by the time at which they were made."""

    state: list[AlertState] | None = Field(None, description="default: those not closed")


@router.get("/alerts")
@shared
def list_alerts(context: Context, query: Annotated[AlertFilter, Query()]) -> Page[AlertItem]:
    """Return alerts, the newest first."""
    with context.database.read() as connection:
        states = query.state or (AlertState.WAITING, AlertState.OPEN)
        found = alerts.page(connection, query.bounds(context, int, UUID), states)
    return query.page(found, alert_item, lambda one: (one.created_ns, one.alert_id))


@router.get("/alerts/{alert_id}")
def read_alert(context: Context, alert_id: UUID, response: Response) -> AlertDetail:
    """Return one alert with up to 100 of its anomalies and deliveries."""
    shown = _detail(context, alert_id)
    response.headers["etag"] = tag_of(shown)
    return shown


def _detail(context: ApiContext, alert_id: UUID) -> AlertDetail:
    with context.database.read() as connection:
        alert = _alert(context, alert_id)
        members = alerts.members_of(connection, alert_id, 100)
        sent = deliveries.query(connection, alert_id=alert_id, limit=100)
    return AlertDetail(
        **_alert_values(alert),
        anomalies=[member.subject for member in members],
        deliveries=[delivery_item(one) for one in sent],
    )


@router.post("/alerts/{alert_id}/acknowledge", status_code=202)
def acknowledge_alert(
    context: Context, alert_id: UUID, request: AcknowledgeRequest, if_match: IfMatch = None
) -> AlertItem:
    """Acknowledge an open alert.

    The alert process applies it within a second or two.
    """
    alert = _alert(context, alert_id)
    if if_match is not None:
        require_match(if_match, _detail(context, alert_id))
    author = context.author(request.author)
    with context.database.begin() as connection:
        acknowledge(connection, alert, author, time_ns())
        context.record(connection, audited_changes.acknowledged(alert, author))
    return alert_item(alert)


def _alert(context: ApiContext, alert_id: UUID) -> AlertRecord:
    with context.database.read() as connection:
        found = alerts.alerts(connection, [alert_id])
    missing = f"there is no alert {alert_id}"
    if not found:
        raise InputError(missing)
    context.require_visible(found[alert_id].stream, missing)
    return found[alert_id]


def alert_item(alert: AlertRecord) -> AlertItem:
    """Return an alert as the API shows it."""
    return AlertItem(**_alert_values(alert))


def _alert_values(alert: AlertRecord) -> dict[str, Any]:
    times = ("opened", "ended", "resolved")
    return (
        asdict(alert)
        | {name: show_time(getattr(alert, f"{name}_ns")) for name in times}
        | {
            "id": alert.alert_id,
            "group": alert.group_key,
            "surprise": finite(alert.surprise),
            "acknowledged": show_time(alert.acked_ns),
            "acknowledged_by": alert.acked_by,
        }
    )
