"""Data and changes of the page *Incident*: an alert or an anomaly."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection

from pipeline.alerts.outbox import OutboxWriter
from pipeline.alerts.routing.matchers import escape_glob
from pipeline.core.errors import InputError
from pipeline.core.types import Anomaly, AnomalyState
from pipeline.dashboard.source import ViewSource
from pipeline.dashboard.words import MS, anomaly_json
from storage.alerting import alerts, deliveries, outbox, silences
from storage.alerting.alerts import AlertRecord
from storage.alerting.states import EventKind
from storage.results import anomalies, labels

MAX_MEMBERS = 50
MAX_ELSEWHERE = 30
#: Anomalies that began this long before or after belong to "at the same time".
AROUND_NS = 300 * 10**9
LABELS = ("true", "false", "maintenance")
MAX_SILENCE_HOURS = 24 * 30
AUTHOR = "dashboard"


def incident(source: ViewSource, kind: str, id_: str) -> dict[str, Any]:
    """Return everything about an alert (kind ``alerts``) or an anomaly.

    Raises:
        InputError: there is no such alert or anomaly.
    """
    with source.database.read() as connection:
        alert, members = _found(connection, kind, id_)
        first = members[0] if members else None
        around = [] if first is None else _around(connection, first, {one.id for one in members})
        sent = [] if alert is None else deliveries.query(connection, alert_id=alert.alert_id, limit=100)
        reviews = labels.reviews(connection, [one.id for one in members])
        attempts = {
            str(one.id): [_attempt(row) for row in deliveries.attempts_of(connection, one.id)] for one in sent
        }
        in_force = [] if first is None else silences.in_force(connection, first.stream, time.time_ns())
    units = _units(source, first)
    return {
        "alert": None if alert is None else _alert(alert),
        "anomalies": [
            anomaly_json(one, units)
            | {"label": None if (review := reviews.get(one.id)) is None else _review(review)}
            for one in members
        ],
        "around": [anomaly_json(one) for one in around],
        "deliveries": [
            {
                "id": str(one.id),
                "endpoint": one.endpoint,
                "kind": one.kind,
                "state": str(one.state),
                "reason": one.reason,
                "attempts": attempts[str(one.id)],
                "created_ms": one.created_ns // MS,
                "finished_ms": None if one.finished_ns is None else one.finished_ns // MS,
            }
            for one in sent
        ],
        "silences": [
            {"id": str(one.id), "match": one.match, "ends_ms": one.ends_ns // MS, "author": one.author}
            for one in in_force
        ],
        "endpoints": sorted(source.config.endpoints),
    }


def _units(source: ViewSource, anomaly: Anomaly | None) -> dict[str, str]:
    stream = None if anomaly is None else source.config.streams.get(anomaly.stream)
    return {} if stream is None else dict(stream.alerts.units)


def _found(connection: Connection, kind: str, id_: str) -> tuple[AlertRecord | None, list[Anomaly]]:
    if kind == "alerts":
        found = alerts.with_prefix(connection, id_.replace("-", ""))
        if len(found) != 1:
            raise InputError(f"there is no alert {id_}; the page Fleet lists what is stored")
        return found[0], _members(connection, found[0].alert_id)
    anomaly = anomalies.get(connection, id_)
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


def _around(connection: Connection, anomaly: Anomaly, known: set[UUID]) -> list[Anomaly]:
    found = anomalies.query(
        connection,
        since_ns=anomaly.start_ns - AROUND_NS,
        until_ns=anomaly.end_ns + AROUND_NS,
        limit=MAX_ELSEWHERE + len(known),
    )
    return [one for one in found if one.id not in known][:MAX_ELSEWHERE]


def _alert(alert: AlertRecord) -> dict[str, Any]:
    return {
        "id": str(alert.alert_id),
        "stream": alert.stream,
        "kind": alert.kind.value,
        "rule": alert.rule,
        "state": alert.state.value,
        "outcome": alert.outcome,
        "urgency": alert.urgency.value,
        "severity": alert.severity,
        "count": alert.count,
        "open_count": alert.open_count,
        "opened_ms": alert.opened_ns // MS,
        "resolved_ms": None if alert.resolved_ns is None else alert.resolved_ns // MS,
        "acked_by": alert.acked_by,
        "acked_ms": None if alert.acked_ns is None else alert.acked_ns // MS,
        "suppressed_by": alert.suppressed_by,
        "flapping": alert.flapping,
        "sent_count": alert.sent_count,
        "labels": alert.labels,
    }


def _review(review: labels.Review) -> dict[str, Any]:
    return {"label": review.label, "by": review.author, "comment": review.comment}


def _attempt(row: dict[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in row.items() if isinstance(value, str | int | None)}
    return shown | {"started_ms": row["started_ns"] // MS, "latency_ms": row["latency_ns"] / MS}


def acknowledge(source: ViewSource, body: dict[str, Any]) -> dict[str, Any]:
    """Acknowledge an open alert; its receivers are notified.

    Raises:
        InputError: there is no such alert, or it is not open.
    """
    with source.database.begin() as connection:
        alert, _ = _found(connection, "alerts", str(body.get("alert", "")))
        if alert is None or alert.state.value != "open":
            raise InputError("only an open alert can be acknowledged; this one has ended or was not sent yet")
        event = outbox.OutboxEvent(
            uuid4(), alert.stream, EventKind.ACKNOWLEDGED, alert.alert_id, AUTHOR, time.time_ns()
        )
        outbox.add_events(connection, [event])
    return {"done": "Acknowledged. Receivers are notified, and the alert is not repeated."}


def label(source: ViewSource, body: dict[str, Any]) -> dict[str, Any]:
    """Label an anomaly as true, false or maintenance.

    The alert of a false one is retracted.

    Raises:
        InputError: the label or the anomaly does not exist.
    """
    word, now_ns = body.get("label"), time.time_ns()
    if word not in LABELS:
        raise InputError(f"label: write one of {', '.join(LABELS)}")
    with source.database.begin() as connection:
        anomaly = anomalies.get(connection, str(body.get("anomaly", "")))
        labels.put(connection, anomaly.id, word, AUTHOR, str(body.get("comment", ""))[:1000], now_ns)  # type: ignore[arg-type]
        if word == "false":
            retracted = replace(anomaly, state=AnomalyState.CLOSED, points=0)
            writer = OutboxWriter(anomaly.stream, enabled=bool(source.config.endpoints))
            writer.on_changes(connection, [retracted], now_ns)
    return {"done": f"Labelled {word}."}


def silence(source: ViewSource, body: dict[str, Any]) -> dict[str, Any]:
    """Silence alerts with the labels of an anomaly for some hours.

    Raises:
        InputError: the anomaly does not exist, or the duration is out of range.
    """
    hours, now_ns = body.get("hours"), time.time_ns()
    if not isinstance(hours, int | float) or not 0 < hours <= MAX_SILENCE_HOURS:
        raise InputError(f"hours: write a number above 0 and up to {MAX_SILENCE_HOURS}")
    with source.database.begin() as connection:
        anomaly = anomalies.get(connection, str(body.get("anomaly", "")))
        match: dict[str, Any] = {"series": escape_glob(anomaly.series)}
        ends_ns = now_ns + int(hours * 3600 * 10**9)
        one = silences.ManualSilence(
            uuid4(),
            anomaly.stream,
            match,
            now_ns,
            ends_ns,
            AUTHOR,
            str(body.get("comment", ""))[:1000],
            now_ns,
        )
        silences.add(connection, one)
    return {"done": f"Alerts of this series are silenced for {hours:g} hours.", "id": str(one.id)}


def end_silence(source: ViewSource, body: dict[str, Any]) -> dict[str, Any]:
    """End a silence now.

    Raises:
        InputError: no such silence is in force.
    """
    digits = str(body.get("silence", "")).replace("-", "").lower()
    if len(digits) != 32 or set(digits) - set("0123456789abcdef"):
        raise InputError("silence: give its whole id")
    with source.database.begin() as connection:
        if not silences.expire(connection, digits, time.time_ns()):
            raise InputError("there is no such silence in force; it may have ended already")
    return {"done": "The silence has ended."}


def explain(source: ViewSource, body: dict[str, Any]) -> dict[str, Any]:
    """Recompute the verdict of an anomaly from the recorded history.

    Raises:
        InputError: the anomaly, or its stream in the config, does not exist.
    """
    from pipeline.services.explain import explain as recompute

    with source.database.read() as connection:
        anomaly = anomalies.get(connection, str(body.get("anomaly", "")))
    explanation = recompute(source.config, source.database, anomaly)
    return {"done": str(explanation), "verdict": explanation.verdict.value}
