"""Alerts, deliveries and silences."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from time import time_ns
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from pipeline.api.context import Context, Filter, Name, StreamFilter, require_stream, to_ns
from pipeline.core.errors import InputError
from pipeline.core.iso_times import show_time
from pipeline.dashboard.words import finite
from pipeline.services.reviews import acknowledge
from storage.alerting import alerts, deliveries, delivery_queue, silences
from storage.alerting.alerts import AlertRecord
from storage.alerting.deliveries import Delivery
from storage.alerting.silences import ManualSilence
from storage.alerting.states import AlertState, DeliveryState

router = APIRouter(tags=["alerts"])


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


class DeliveryItem(BaseModel):
    """One message on its way to one endpoint."""

    id: UUID
    alert_id: UUID
    notification_id: UUID
    endpoint: str
    kind: str
    state: DeliveryState
    reason: str | None
    attempts: int
    created: str | None
    finished: str | None


class Attempt(BaseModel):
    """One attempt of a delivery."""

    attempt: int
    started: str | None
    outcome: str
    status: int | None
    seconds: float
    answer: str


class DeliveryDetail(DeliveryItem):
    """One delivery with every attempt; the payload is null if no longer stored."""

    log: list[Attempt]
    payload: str | None


class AlertDetail(AlertItem):
    """One alert with its anomalies, the most surprising first, and its deliveries."""

    anomalies: list[UUID]
    deliveries: list[DeliveryItem]


class AcknowledgeRequest(BaseModel):
    """Person who acknowledges."""

    author: str = Field("api", min_length=1, max_length=200)


class RedeliverRequest(BaseModel):
    """With ``force``, also if the alert has delivered a newer message."""

    force: bool = False


class SilenceItem(BaseModel):
    """A silence that was added by hand."""

    id: UUID
    stream: str | None
    match: dict[str, Any]
    starts: str | None
    ends: str | None
    author: str
    comment: str


class SilenceRequest(BaseModel):
    """A silence until ``ends``.

    Without a stream and with an empty ``match`` it silences everything.
    """

    stream: str | None = Field(None, max_length=500)
    match: dict[str, str] = Field(max_length=50, examples=[{"site": "eu-*"}])
    ends: datetime = Field(examples=["2030-01-01T12:00:00Z"])
    author: str = Field("api", min_length=1, max_length=200)
    comment: str = Field("", max_length=2000)


class AlertFilter(StreamFilter):
    """Alerts of a stream; ``from`` is the time at which they were made."""

    state: list[AlertState] | None = Field(None, description="default: those not closed")
    since: datetime | None = Field(None, alias="from", description="earliest time")


class DeliveryFilter(Filter):
    """Deliveries to one endpoint or to all."""

    endpoint: Name | None = None
    state: DeliveryState | None = None
    since: datetime | None = Field(None, alias="from", description="earliest time")


class SilenceFilter(Filter):
    """Silences in force."""

    ended: bool = Field(False, description="also those that have ended")


@router.get("/alerts")
def list_alerts(context: Context, query: Annotated[AlertFilter, Query()]) -> list[AlertItem]:
    """Return alerts, the newest first."""
    with context.database.read() as connection:
        found = alerts.query(
            connection,
            stream=query.stream,
            states=query.state or (AlertState.WAITING, AlertState.OPEN),
            since_ns=to_ns(query.since),
            limit=query.limit,
        )
    return [AlertItem(**_alert_values(one)) for one in found]


@router.get("/alerts/{alert_id}")
def read_alert(context: Context, alert_id: UUID) -> AlertDetail:
    """Return one alert with up to 100 of its anomalies and deliveries."""
    with context.database.read() as connection:
        alert = _alert(context, alert_id)
        members = alerts.members_of(connection, alert_id, 100)
        sent = deliveries.query(connection, alert_id=alert_id, limit=100)
    return AlertDetail(
        **_alert_values(alert),
        anomalies=[member.subject for member in members],
        deliveries=[DeliveryItem(**_delivery_values(one)) for one in sent],
    )


@router.post("/alerts/{alert_id}/acknowledge", status_code=202)
def acknowledge_alert(context: Context, alert_id: UUID, request: AcknowledgeRequest) -> AlertItem:
    """Acknowledge an open alert.

    The alert process applies it within a second or two.
    """
    alert = _alert(context, alert_id)
    with context.database.begin() as connection:
        acknowledge(connection, alert, request.author, time_ns())
    return AlertItem(**_alert_values(alert))


@router.get("/deliveries")
def list_deliveries(context: Context, query: Annotated[DeliveryFilter, Query()]) -> list[DeliveryItem]:
    """Return deliveries, the newest first."""
    with context.database.read() as connection:
        found = deliveries.query(
            connection,
            endpoint=query.endpoint,
            state=query.state,
            since_ns=to_ns(query.since),
            limit=query.limit,
        )
    return [DeliveryItem(**_delivery_values(one)) for one in found]


@router.get("/deliveries/{delivery_id}")
def read_delivery(context: Context, delivery_id: UUID) -> DeliveryDetail:
    """Return one delivery with its attempts and payload."""
    with context.database.read() as connection:
        found = deliveries.with_prefix(connection, delivery_id.hex)
        if not found:
            raise InputError(f"there is no delivery {delivery_id}")
        log = deliveries.attempts_of(connection, delivery_id)
        payload = deliveries.body_of(connection, found[0].notification_id)
    attempts = [
        Attempt(
            **{name: one[name] for name in ("attempt", "outcome", "status", "answer")},
            started=show_time(one["started_ns"]),
            seconds=one["latency_ns"] / 1e9,
        )
        for one in log
    ]
    return DeliveryDetail(**_delivery_values(found[0]), log=attempts, payload=payload)


@router.post("/deliveries/{delivery_id}/redeliver", status_code=202)
def redeliver(context: Context, delivery_id: UUID, request: RedeliverRequest) -> DeliveryDetail:
    """Queue a finished delivery again.

    It keeps its id, so that its receiver can drop a repeat.
    """
    with context.database.begin() as connection:
        if not deliveries.with_prefix(connection, delivery_id.hex):
            raise InputError(f"there is no delivery {delivery_id}")
        if not delivery_queue.redeliver(connection, [delivery_id], time_ns(), force=request.force):
            raise InputError(
                f"delivery {delivery_id} is pending, or its alert has delivered a newer message; "
                "`force` sends it in the second case"
            )
    return read_delivery(context, delivery_id)


@router.get("/silences", tags=["silences"])
def list_silences(context: Context, query: Annotated[SilenceFilter, Query()]) -> list[SilenceItem]:
    """Return silences that were added by hand, by their end."""
    with context.database.read() as connection:
        found = silences.query(connection, now_ns=None if query.ended else time_ns(), limit=query.limit)
    return [_silence(one) for one in found]


@router.post("/silences", status_code=201, tags=["silences"])
def add_silence(context: Context, request: SilenceRequest) -> SilenceItem:
    """Silence matching alerts from now on; they are kept and listed."""
    now_ns, ends_ns = time_ns(), to_ns(request.ends)
    if ends_ns is None or ends_ns <= now_ns:
        raise InputError("ends: the end of the silence is in the past; give a future time")
    if request.stream is not None:
        require_stream(context.config, request.stream)
    silence = ManualSilence(
        uuid4(),
        request.stream,
        dict(request.match),
        now_ns,
        ends_ns,
        request.author,
        request.comment,
        now_ns,
    )
    with context.database.begin() as connection:
        silences.add(connection, silence)
    return _silence(silence)


@router.delete("/silences/{silence_id}", status_code=204, tags=["silences"])
def end_silence(context: Context, silence_id: UUID) -> None:
    """End a silence now; alerts that are still open are sent."""
    with context.database.begin() as connection:
        if not silences.expire(connection, silence_id.hex, time_ns()):
            raise InputError(f"there is no silence {silence_id} in force")


def _alert(context: Context, alert_id: UUID) -> AlertRecord:
    with context.database.read() as connection:
        found = alerts.alerts(connection, [alert_id])
    if not found:
        raise InputError(f"there is no alert {alert_id}")
    return found[alert_id]


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


def _delivery_values(one: Delivery) -> dict[str, Any]:
    times = {"created": show_time(one.created_ns), "finished": show_time(one.finished_ns)}
    return asdict(one) | times


def _silence(one: ManualSilence) -> SilenceItem:
    times = {"starts": show_time(one.starts_ns), "ends": show_time(one.ends_ns)}
    return SilenceItem(**asdict(one) | times)
