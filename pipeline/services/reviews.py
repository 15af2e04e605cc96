"""Reviews of people: acknowledgement of an alert, label of an anomaly."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import Connection

from pipeline.alerts.outbox import OutboxWriter
from pipeline.core.errors import InputError
from pipeline.core.types import Anomaly, AnomalyState
from storage.alerting import alerts, outbox
from storage.alerting.alerts import AlertRecord
from storage.alerting.states import AlertState, EventKind
from storage.results import labels
from storage.results.labels import Review

if TYPE_CHECKING:
    from pipeline.config.schema import Config


def acknowledge(connection: Connection, alert: AlertRecord, author: str, now_ns: int) -> None:
    """Acknowledge an alert: its receivers are notified, and it is not repeated.

    Args:
        connection: A transaction.
        alert: The alert.
        author: The person.
        now_ns: Current time.

    Raises:
        InputError: The alert is not open.
    """
    if alert.state != AlertState.OPEN:
        state = alert.outcome or alert.state.value
        raise InputError(f"alert {alert.alert_id} is {state} and cannot be acknowledged")
    event = outbox.OutboxEvent(uuid4(), alert.stream, EventKind.ACKNOWLEDGED, alert.alert_id, author, now_ns)
    outbox.add_events(connection, [event])


def label_anomaly(connection: Connection, config: Config, anomaly: Anomaly, review: Review) -> None:
    """Store the label of an anomaly, which retracts its alert or restores it.

    ``false`` retracts it, another label in place of ``false`` restores it.

    Args:
        connection: A transaction.
        config: The configuration.
        anomaly: The anomaly.
        review: The label with author, reason and time.
    """
    before = labels.of(connection, [anomaly.id]).get(anomaly.id)
    labels.put(connection, anomaly.id, review.label, review.author, review.comment, review.created_ns)
    writer = OutboxWriter(anomaly.stream, enabled=bool(config.endpoints))
    if review.label == "false":
        retracted = replace(anomaly, state=AnomalyState.CLOSED, points=0)
        writer.on_label(connection, retracted, review.created_ns)
    elif before == "false" and alerts.members(connection, [anomaly.id]):
        writer.on_label(connection, anomaly, review.created_ns)
