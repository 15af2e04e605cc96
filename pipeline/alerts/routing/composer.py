"""Composition of the payload of a notification from the state of an alert."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
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
    ReviewView,
    encode,
    number,
    stamp,
)
from pipeline.alerts.outbox import decode_anomaly, decode_fault
from pipeline.alerts.routing.matchers import escape_glob, label_matcher
from pipeline.alerts.routing.rules import Behaviour
from pipeline.config.alerts import AlertsConfig
from pipeline.core.deviation_severity import severity_text
from pipeline.core.durations import SECOND_NS, to_nanoseconds
from pipeline.core.end_text import stayed, told_anomaly, told_statement
from pipeline.core.farthest_reading import begin_texts, begin_window_ns
from pipeline.core.first_steps import first_step
from pipeline.core.types import END_REASON_TEXTS, Anomaly
from pipeline.core.usual_range_text import deviation_text, relation_text
from pipeline.core.verdict_words import former_cause, former_forecaster
from storage.alerting.alerts import AlertMember, AlertRecord
from storage.alerting.states import AlertKind, AlertState, MemberState

_EXPIRY_GRACE_NS = to_nanoseconds(timedelta(hours=1))
MAX_OTHER_SERIES = 5
MAX_CHANNELS = 20
MAX_LABELS = 32
#: Standard Webhooks asks for payloads below 20 kB.
MAX_PAYLOAD_BYTES = 18_000


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Parts of the commands and links in messages.

    ``config`` is the absolute path of the config file, ``folder`` the folder that relative paths in it start
    from, if there are such paths. ``dashboard`` is the public address of the dashboard.
    """

    config: Path | None = None
    folder: Path | None = None
    dashboard: str | None = None

    def line(self, *arguments: str) -> str:
        """Return the command ``forewatch`` with these arguments, for a POSIX shell."""
        known = () if self.config is None else ("--config", str(self.config))
        command = shlex.join(["forewatch", *arguments, *known])
        return command if self.folder is None else f"cd {shlex.quote(str(self.folder))} && {command}"


@dataclass(frozen=True, slots=True)
class NotificationContext:
    """Members and surroundings of an alert at the time of a notification.

    ``members`` are the most surprising ones; ``count`` and ``open_count`` are those that are not silenced.
    ``timezone`` is that of the stream, "" for UTC.
    """

    members: Sequence[AlertMember]
    count: int
    open_count: int
    hints: Sequence[Hint] = ()
    elsewhere: Sequence[str] = ()
    budget: BudgetView | None = None
    shell: CommandLine = CommandLine()
    review: ReviewView | None = None
    timezone: str = ""


def compose(
    alert: AlertRecord,
    kind: Kind,
    sequence: int,
    context: NotificationContext,
    behaviour: Behaviour,
    config: AlertsConfig,
    now_ns: int,
) -> Payload:
    """Return the payload of one notification.

    Args:
        alert: The alert that it is about.
        kind: Kind of the notification.
        sequence: Number of the notification in its queue.
        context: Members of the alert and its surroundings.
        behaviour: Behaviour of the rule of the alert.
        config: The ``alerts`` of the stream.
        now_ns: The time, ns since the epoch.
    """
    draft = _untitled(alert, kind, sequence, context, behaviour, config, now_ns)
    titled = msgspec.structs.replace(draft, title=text.title(draft))
    return _fitted(
        Payload(f"alert.{kind}.v1", stamp(now_ns), msgspec.structs.replace(titled, text=text.body(titled)))
    )


def _untitled(
    alert: AlertRecord,
    kind: Kind,
    sequence: int,
    context: NotificationContext,
    behaviour: Behaviour,
    config: AlertsConfig,
    now_ns: int,
) -> Alert:
    fault = _fault(_newest(context.members)) if alert.kind == AlertKind.FAULT and context.members else None
    listed = () if alert.kind == AlertKind.FAULT else context.members[:LISTED]
    views = [anomaly_view(member, config.units, context.timezone) for member in listed]
    pause = behaviour.repeat if behaviour.repeat is not None else to_nanoseconds(timedelta(days=7))
    base = config.public_url.rstrip("/") if config.public_url is not None else None
    drawn = base is not None and bool(views)
    return Alert(
        alert_id=str(alert.alert_id),
        dedup_key=dedup_key(alert),
        sequence=sequence,
        stream=alert.stream,
        class_=alert.kind.value,
        rule=alert.rule,
        urgency=alert.urgency.value,
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
        expires=stamp(now_ns + 2 * pause + _EXPIRY_GRACE_NS),
        flapping=alert.flapping,
        count=context.count,
        open_count=context.open_count,
        anomalies=views,
        fault=fault,
        root_cause=[msgspec.structs.replace(h, series=text.clean(h.series)) for h in context.hints],
        elsewhere=[text.clean(name, 100) for name in context.elsewhere],
        budget=context.budget,
        commands=_commands(alert, views, context.members, context.shell),
        link=_page_of(alert, context.shell.dashboard or (base if drawn else None)),
        picture=f"{base}/alerts/{alert.alert_id}.png" if drawn else None,
        review=context.review if context.review is not None else msgspec.UNSET,
        timezone=context.timezone,
    )


def dedup_key(alert: AlertRecord) -> str:
    """Return the key that all alerts of one series or group share."""
    return short(text.clean(f"forewatch/{alert.stream}/{alert.rule}/{alert.group_key}", 1000), 255)


def short(name: str, limit: int = 200) -> str:
    """Return ``name``, or its beginning and a hash if it is longer than a database key may be."""
    if len(name) <= limit and len(name.encode("utf-8", "replace")) <= 3 * limit:
        return name
    from hashlib import blake2b

    return f"{name[: limit // 4]}…{blake2b(name.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"


def other_series(found: Sequence[AlertMember], alert: AlertRecord, series: Collection[str]) -> list[str]:
    """Return the series of other alerts among ``found``, as stream/series."""
    names = [
        f"{m.stream}/{m.series}"
        for m in found
        if m.alert_id != alert.alert_id and m.series not in series and m.state != MemberState.RETRACTED
    ]
    return list(dict.fromkeys(names))[:MAX_OTHER_SERIES]


def anomaly_view(member: AlertMember, units: dict[str, str], timezone: str = "") -> AnomalyView:
    """Return an anomaly as a payload lists it.

    ``timezone`` is that of the times in texts, "" for UTC.
    """
    anomaly, ended = decode_anomaly(member.body), member.state != MemberState.OPEN
    unit = units.get(anomaly.channels[anomaly.leading_channel])
    statement = told_statement(anomaly, unit, timezone, ended=ended)
    anomaly = told_anomaly(anomaly, ended=ended)
    channels = _channels_of(anomaly, units)
    return AnomalyView(
        id=str(anomaly.id),
        series=text.clean(anomaly.series),
        labels=_labels(anomaly.labels),
        state=member.state.value,
        severity=anomaly.severity.value,
        direction=anomaly.direction,
        start=stamp(anomaly.began_ns),
        peak=stamp(anomaly.peak_ns),
        end=stamp(anomaly.lasted_until_ns),
        points=anomaly.points,
        readings=anomaly.readings,
        first_alarm=stamp(anomaly.start_ns) if anomaly.start_ns > anomaly.began_ns else "",
        start_uncertainty_s=begin_window_ns(anomaly) / SECOND_NS or None,
        score=number(anomaly.score) or 0.0,
        surprise=number(anomaly.surprise) or 0.0,
        channels=sorted(channels, key=lambda c: -(c.contribution or 0.0))[:MAX_CHANNELS],
        guard=former_forecaster(anomaly.forecaster),
        evidence=former_cause(anomaly.cause),
        model_version=text.clean(anomaly.model_version, 100),
        config_hash=anomaly.config_hash,
        origin=_origin(anomaly),
        forecaster=anomaly.forecaster,
        cause=anomaly.cause,
        statement=text.clean(statement or "", 300),
        size=deviation_text(anomaly) if anomaly.ratio else "",
        severity_reason=severity_text(anomaly, ended=ended, zone=timezone),
        first_step=text.clean(first_step(anomaly, *begin_texts(anomaly, timezone)), 400),
        ratio=anomaly.ratio or None,
        relative=anomaly.relative,
        relation=text.clean(relation_text(anomaly, units), 300),
        end_reason=anomaly.end_reason if anomaly.end_reason in END_REASON_TEXTS else "",
        basis=anomaly.context.basis if anomaly.ratio and anomaly.context is not None else "",
        stayed=stayed(anomaly) if ended else None,
    )


def _origin(anomaly: Anomaly) -> Origin:
    offsets = (anomaly.first_offset, anomaly.peak_offset, anomaly.last_offset)
    return Origin(text.clean(anomaly.partition.topic), anomaly.partition.number, *offsets)


def _channels_of(anomaly: Anomaly, units: dict[str, str]) -> list[Channel]:
    numbers = zip(
        anomaly.observed, anomaly.expected, anomaly.lower, anomaly.upper, anomaly.contribution, strict=True
    )
    return [
        Channel(text.clean(name, 100), units.get(name), *(number(v) for v in values))
        for name, values in zip(anomaly.channels, numbers, strict=True)
    ]


def _newest(members: Sequence[AlertMember]) -> AlertMember:
    """Return the open fault that began last, or the last one if all have ended."""
    return max(members, key=lambda m: (m.state == MemberState.OPEN, m.start_ns))


def _fault(member: AlertMember) -> FaultView:
    fault = decode_fault(member.body)
    ended = stamp(fault.ended_ns) if fault.ended_ns is not None else None
    partition = str(fault.partition) if fault.partition is not None else None
    return FaultView(
        fault.kind.value, text.clean(fault.message, 1000), stamp(fault.started_ns), ended, partition
    )


def _fitted(payload: Payload) -> Payload:
    """Return the payload with as many anomalies as fit into a message."""
    while len(payload.data.anomalies) > 1 and len(encode(payload)) > MAX_PAYLOAD_BYTES:
        fewer = payload.data.anomalies[: len(payload.data.anomalies) // 2]
        payload = msgspec.structs.replace(
            payload, data=msgspec.structs.replace(payload.data, anomalies=fewer)
        )
    return payload


def _labels(labels: dict[str, str]) -> dict[str, str]:
    return {text.clean(k, 100): text.clean(v) for k, v in list(labels.items())[:MAX_LABELS]}


def _status(alert: AlertRecord, kind: Kind) -> Any:
    if kind in ("resolved", "retracted"):
        return kind
    if kind == "revised" and alert.state == AlertState.CLOSED:
        return "resolved"
    return "acknowledged" if alert.acked_ns is not None else "open"


def _page_of(alert: AlertRecord, address: str | None) -> str | None:
    """Return the address of the page of an alert below that of its server."""
    return None if address is None else f"{address.rstrip('/')}/alerts/{alert.alert_id}"


def _commands(
    alert: AlertRecord, views: Sequence[AnomalyView], members: Sequence[AlertMember], shell: CommandLine
) -> Commands:
    match = _silence_match(alert, members)
    which = [part for k, v in match.items() for part in ("--match", f"{k}={v}")] if match else ["--all"]
    first = views[0].id[:13] if views else None
    return Commands(
        explain=shell.line("anomalies", "explain", first) if first is not None else None,
        acknowledge=shell.line("alerts", "ack", _prefix(alert.alert_id)),
        label=shell.line("alerts", "label", first, "false") if first is not None else None,
        silence=shell.line("silences", "add", "--stream", alert.stream, *which, "--for", "2h"),
    )


def _silence_match(alert: AlertRecord, members: Sequence[AlertMember]) -> dict[str, str]:
    """Return the matcher of the alerts like this one; empty for those that only the stream describes."""
    labels = label_matcher(dict(list(alert.labels.items())[:MAX_LABELS]))
    if labels or not members:
        return labels
    if alert.kind == AlertKind.FAULT:
        return {"fault": escape_glob(members[0].series)}
    series = decode_anomaly(members[0].body).series
    return {"series": escape_glob(series)} if alert.group_key == short(series) else {}


def _prefix(alert_id: UUID) -> str:
    """Return enough of an id for a command."""
    return str(alert_id)[:13]
