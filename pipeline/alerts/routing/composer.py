"""From the state of an alert to the payload that is sent."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast
from uuid import UUID

import msgspec

from pipeline.alerts.messages import text
from pipeline.alerts.messages.payload import (
    LISTED,
    Alert,
    AnomalyView,
    BudgetView,
    Channel,
    Commands,
    FaultView,
    Hint,
    Kind,
    Origin,
    Payload,
    encode,
    number,
    stamp,
)
from pipeline.alerts.outbox import decode_anomaly, decode_fault
from pipeline.alerts.routing.rules import Behaviour
from pipeline.config.alerts import Alerts
from pipeline.core.durations import to_nanoseconds
from pipeline.core.verdict_words import former_cause, former_forecaster
from storage.alerting.alerts import AlertState, Member

_GRACE = to_nanoseconds(timedelta(hours=1))
_ELSEWHERE = 5
_CHANNELS = 20
_LABELS = 32
#: Standard Webhooks asks for payloads below 20 kB.
_LARGEST = 18_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What surrounds an alert when it speaks.

    ``members`` are the most surprising ones, ``count`` and ``open_count`` all that are not muted.
    """

    members: Sequence[Member]
    count: int
    open_count: int
    hints: Sequence[Hint] = ()
    elsewhere: Sequence[str] = ()
    budget: BudgetView | None = None


def compose(
    alert: AlertState,
    kind: Kind,
    sequence: int,
    scene: Scene,
    behaviour: Behaviour,
    config: Alerts,
    now_ns: int,
) -> Payload:
    """The payload of one message about ``alert``."""
    fault = _fault(scene.members[0]) if alert.kind == "fault" and scene.members else None
    views = [] if alert.kind == "fault" else [anomaly_view(m, config.units) for m in scene.members[:LISTED]]
    pause = behaviour.repeat if behaviour.repeat is not None else to_nanoseconds(timedelta(days=7))
    base = config.public_url.rstrip("/") if config.public_url is not None else None
    drawn = base is not None and bool(views)
    draft = Alert(
        alert_id=str(alert.alert_id),
        dedup_key=dedup_key(alert),
        sequence=sequence,
        stream=alert.stream,
        class_=cast(Literal["data", "fault"], alert.kind),
        rule=alert.rule,
        urgency=cast(Literal["page", "notice"], alert.urgency),
        severity=alert.severity,
        severities=list(dict.fromkeys([*alert.severities, alert.severity])),
        status=_status(alert, kind),
        title="",
        text="",
        labels=_labels(alert.labels),
        opened=stamp(alert.opened_ns),
        resolved=stamp(alert.resolved_ns)
        if alert.resolved_ns is not None and kind in ("resolved", "retracted")
        else None,
        expires=stamp(now_ns + 2 * pause + _GRACE),
        flapping=alert.flapping,
        count=scene.count,
        open_count=scene.open_count,
        anomalies=views,
        fault=fault,
        root_cause=[msgspec.structs.replace(h, series=text.clean(h.series)) for h in scene.hints],
        elsewhere=[text.clean(name, 100) for name in scene.elsewhere],
        budget=scene.budget,
        commands=_commands(alert, views),
        link=f"{base}/alerts/{alert.alert_id}" if drawn else None,
        picture=f"{base}/alerts/{alert.alert_id}.png" if drawn else None,
    )
    titled = msgspec.structs.replace(draft, title=text.title(draft))
    return _fitted(
        Payload(f"alert.{kind}.v1", stamp(now_ns), msgspec.structs.replace(titled, text=text.body(titled)))
    )


def dedup_key(alert: AlertState) -> str:
    return short(text.clean(f"forewatch/{alert.stream}/{alert.rule}/{alert.group_key}", 1000), 255)


def short(name: str, limit: int = 200) -> str:
    """``name`` if it fits; else its beginning and a hash, so that it is still its own and fits a database
    key."""
    if len(name) <= limit and len(name.encode("utf-8", "replace")) <= 3 * limit:
        return name
    from hashlib import blake2b

    return f"{name[: limit // 4]}…{blake2b(name.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"


def elsewhere(found: Sequence[Member], alert: AlertState, series: Collection[str]) -> list[str]:
    """Series of other alerts among ``found``, as stream/series."""
    names = [
        f"{m.stream}/{m.series}"
        for m in found
        if m.alert_id != alert.alert_id and m.series not in series and m.state != "retracted"
    ]
    return list(dict.fromkeys(names))[:_ELSEWHERE]


def anomaly_view(member: Member, units: dict[str, str]) -> AnomalyView:
    anomaly = decode_anomaly(member.body)
    numbers = zip(
        anomaly.observed, anomaly.expected, anomaly.lower, anomaly.upper, anomaly.contribution, strict=True
    )
    channels = [
        Channel(text.clean(name, 100), units.get(name), *(number(v) for v in values))
        for name, values in zip(anomaly.channels, numbers, strict=True)
    ]
    return AnomalyView(
        id=str(anomaly.id),
        series=text.clean(anomaly.series),
        labels=_labels(anomaly.labels),
        state=cast(Literal["open", "closed", "retracted"], member.state),
        severity=anomaly.severity.value,
        direction=anomaly.direction,
        start=stamp(anomaly.start_ns),
        peak=stamp(anomaly.peak_ns),
        end=stamp(anomaly.end_ns),
        points=anomaly.points,
        score=number(anomaly.score) or 0.0,
        surprise=number(anomaly.surprise) or 0.0,
        channels=sorted(channels, key=lambda c: -(c.contribution or 0.0))[:_CHANNELS],
        guard=former_forecaster(anomaly.forecaster),
        evidence=former_cause(anomaly.cause),
        model_version=text.clean(anomaly.model_version, 100),
        config_hash=anomaly.config_hash,
        origin=Origin(
            text.clean(anomaly.partition.topic),
            anomaly.partition.number,
            anomaly.first_offset,
            anomaly.peak_offset,
            anomaly.last_offset,
        ),
        forecaster=anomaly.forecaster,
        cause=anomaly.cause,
    )


def _fault(member: Member) -> FaultView:
    fault = decode_fault(member.body)
    ended = stamp(fault.ended_ns) if fault.ended_ns is not None else None
    partition = str(fault.partition) if fault.partition is not None else None
    return FaultView(
        fault.kind.value, text.clean(fault.message, 1000), stamp(fault.started_ns), ended, partition
    )


def _fitted(payload: Payload) -> Payload:
    """With as many anomalies listed as fit into a message."""
    while len(payload.data.anomalies) > 1 and len(encode(payload)) > _LARGEST:
        fewer = payload.data.anomalies[: len(payload.data.anomalies) // 2]
        payload = msgspec.structs.replace(
            payload, data=msgspec.structs.replace(payload.data, anomalies=fewer)
        )
    return payload


def _labels(labels: dict[str, str]) -> dict[str, str]:
    return {text.clean(k, 100): text.clean(v) for k, v in list(labels.items())[:_LABELS]}


def _status(alert: AlertState, kind: Kind) -> Any:
    if kind in ("resolved", "retracted"):
        return kind
    if kind == "revised" and alert.state == "closed":
        return "resolved"
    return "acknowledged" if alert.acked_ns is not None else "open"


def _commands(alert: AlertState, views: Sequence[AnomalyView]) -> Commands:
    match = " ".join(f"--match {shlex.quote(f'{k}={v}')}" for k, v in sorted(_labels(alert.labels).items()))
    silence = f"forewatch silences add --stream {shlex.quote(alert.stream)} {match} --for 2h".replace(
        "  ", " "
    )
    first = views[0].id[:13] if views else None
    return Commands(
        explain=f"forewatch anomalies explain {first}" if first is not None else None,
        acknowledge=f"forewatch alerts ack {_prefix(alert.alert_id)}",
        label=f"forewatch alerts label {first} false" if first is not None else None,
        silence=silence,
    )


def _prefix(alert_id: UUID) -> str:
    """Enough of an id to type."""
    return str(alert_id)[:13]
