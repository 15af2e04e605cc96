"""One incident: an alert or an anomaly with everything that helps to judge it."""

from __future__ import annotations

import time
from typing import Annotated
from uuid import UUID

from fastapi import Path as PathParameter
from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from pipeline.api.context import ApiContext, Context
from pipeline.api.direct_answers import api_router
from pipeline.api.routes.alerts import AlertItem, alert_item
from pipeline.api.routes.anomalies import (
    AnomalyDetail,
    AnomalyItem,
    anomaly_detail,
    anomaly_item,
    visible_anomaly,
)
from pipeline.api.routes.deliveries import DeliveryItem, delivery_item
from pipeline.api.routes.operations import FaultItem, fault_item
from pipeline.api.routes.silences import SilenceItem, silence_shown
from pipeline.core.iso_times import known_zone
from pipeline.core.types import Anomaly, Fault
from storage.alerting import alerts, deliveries, silences
from storage.alerting.alerts import AlertRecord
from storage.alerting.states import AlertKind
from storage.results import anomalies, faults, labels

router = api_router(tags=["incidents"])

MAX_MEMBERS = 50
MAX_ELSEWHERE = 30
#: Anomalies that began this long before or after belong to "at the same time".
AROUND_NS = 300 * 10**9

IncidentId = Annotated[str, PathParameter(pattern="^[0-9a-fA-F-]{4,36}$", description="id, or its beginning")]
ZoneName = Annotated[
    str,
    Query(
        max_length=100,
        description="time zone of times in texts; by default, and if unknown, that of the stream",
    ),
]


class Incident(BaseModel):
    """An alert with its anomalies, or an anomaly that has no alert."""

    alert: AlertItem | None
    anomalies: list[AnomalyDetail] = Field(description="the requested one, then the most surprising first")
    around: list[AnomalyItem] = Field(description="other anomalies within five minutes")
    deliveries: list[DeliveryItem]
    silences: list[SilenceItem] = Field(description="silences of its stream that are in force")
    endpoints: list[str] = Field(description="endpoints of the config")
    faults: list[FaultItem] = Field(description="faults that the alert is about")


@router.get("/incidents/{incident_id}")
def read_incident(context: Context, incident_id: IncidentId, timezone: ZoneName | None = None) -> Incident:
    """Return everything about the alert or the anomaly of an id."""
    zone = _zone(timezone)
    with context.database.read() as connection:
        alert, members = _found(context, connection, incident_id)
        first = members[0] if members else None
        around = [] if first is None else _around(context, connection, first, {one.id for one in members})
        sent = [] if alert is None else deliveries.query(connection, alert_id=alert.alert_id, limit=100)
        reviews = labels.reviews(connection, [one.id for one in members])
        in_force = [] if first is None else silences.in_force(connection, first.stream, time.time_ns())
        reported = [] if alert is None or alert.kind != AlertKind.FAULT else _faults(connection, alert)
    return Incident(
        alert=None if alert is None else alert_item(alert),
        anomalies=[anomaly_detail(context.config, one, reviews.get(one.id), zone) for one in members],
        around=[anomaly_item(context.config, one) for one in around],
        deliveries=[delivery_item(one) for one in sent],
        silences=[silence_shown(one) for one in in_force],
        endpoints=sorted(context.config.endpoints),
        faults=[fault_item(one) for one in reported],
    )


def _zone(asked: str | None) -> str | None:
    """Return the zone of a reader, None for one that only a browser knows."""
    try:
        return None if asked is None else known_zone(asked)
    except ValueError:
        return None


def _found(context: ApiContext, connection: Connection, id_: str) -> tuple[AlertRecord | None, list[Anomaly]]:
    found = alerts.with_prefix(connection, id_.replace("-", "").lower())
    if len(found) == 1:
        context.require_visible(found[0].stream, f"there is no incident {id_}")
        return found[0], _members(connection, found[0].alert_id)
    anomaly = visible_anomaly(context, connection, id_)
    member = alerts.members(connection, [anomaly.id]).get(anomaly.id)
    if member is None:
        return None, [anomaly]
    alert = alerts.alerts(connection, [member.alert_id]).get(member.alert_id)
    others = [one for one in _members(connection, member.alert_id) if one.id != anomaly.id]
    return alert, [anomaly, *others]


def _members(connection: Connection, alert_id: UUID) -> list[Anomaly]:
    """Return the anomalies of an alert, the most surprising first."""
    subjects = [one.subject for one in alerts.members_of(connection, alert_id, MAX_MEMBERS)]
    by_id = {one.id: one for one in anomalies.having(connection, subjects)}
    return [by_id[subject] for subject in subjects if subject in by_id]


def _around(context: ApiContext, connection: Connection, anomaly: Anomaly, known: set[UUID]) -> list[Anomaly]:
    found = anomalies.query(
        connection,
        stream=context.visible,
        since_ns=anomaly.start_ns - AROUND_NS,
        until_ns=anomaly.end_ns + AROUND_NS,
        limit=MAX_ELSEWHERE + len(known),
    )
    return [one for one in found if one.id not in known][:MAX_ELSEWHERE]


def _faults(connection: Connection, alert: AlertRecord) -> list[Fault]:
    """Return the faults of the stream that began when the alert did."""
    found = faults.query(connection, stream=alert.stream, since_ns=alert.opened_ns - AROUND_NS, limit=100)
    return [one for one in found if one.started_ns <= alert.opened_ns + AROUND_NS][:10]
