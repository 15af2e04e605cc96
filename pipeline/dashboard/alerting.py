"""Data of the page *Alerting*, and a preview of other rules."""

from __future__ import annotations

import time
from typing import Any

from pipeline.alerts.simulation import simulate
from pipeline.config.schema import Config
from pipeline.core.errors import InputError
from pipeline.dashboard.source import ViewSource
from pipeline.dashboard.words import MS
from storage.alerting import alerts, deliveries, endpoints, silences
from storage.alerting.alerts import AlertRecord
from storage.alerting.deliveries import Delivery
from storage.results import anomalies, faults

DAY_NS = 86_400 * 10**9
MAX_ALERTS = 100
MAX_DELIVERIES = 100
MAX_SIMULATED = 5_000
PREVIEW_DAYS = 7
SEVERITIES = ("info", "warning", "major", "critical")


def alerting(source: ViewSource) -> dict[str, Any]:
    """Return rules, silences, endpoints, recent alerts and deliveries."""
    now_ns = time.time_ns()
    with source.database.read() as connection:
        states = endpoints.states(connection)
        backlog = deliveries.backlog(connection)
        recent = alerts.query(connection, limit=MAX_ALERTS)
        sent = deliveries.query(connection, limit=MAX_DELIVERIES)
        silenced = silences.query(connection, now_ns=now_ns)
    return {
        "now_ms": now_ns // MS,
        "alerts": _alerts(recent),
        "deliveries": _deliveries(sent),
        "silences": [
            {
                "id": str(one.id),
                "stream": one.stream,
                "match": one.match,
                "starts_ms": one.starts_ns // MS,
                "ends_ms": one.ends_ns // MS,
                "author": one.author,
                "comment": one.comment,
            }
            for one in silenced
        ],
        "endpoints": [
            {
                "name": name,
                "type": endpoint.type,
                "pending": backlog.get(name, (0, 0))[0],
                "delivered_ms": _ms(state.delivered_ns if (state := states.get(name)) else None),
                "failing_ms": _ms(state.failing_ns if state else None),
                "disabled_ms": _ms(state.disabled_ns if state else None),
                "reason": state.reason if state else None,
            }
            for name, endpoint in source.config.endpoints.items()
        ],
        "rules": {
            name: stream.alerts.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            for name, stream in source.config.streams.items()
        },
    }


def _ms(ns: int | None) -> int | None:
    return None if ns is None else ns // MS


def preview(source: ViewSource, query: dict[str, str]) -> dict[str, Any]:
    """Route the newest anomalies again under another notice level.

    Nothing is sent.

    Raises:
        InputError: the stream or the level does not exist, or there is no endpoint.
    """
    name, notice = query.get("stream", ""), query.get("notice", "")
    if name not in source.config.streams:
        raise InputError(f"there is no stream {name} in the config")
    if notice not in SEVERITIES:
        raise InputError(f"notice={notice}: write one of {', '.join(SEVERITIES)}")
    if not source.config.endpoints:
        raise InputError(
            "the config has no endpoint, so that no message would be sent; add one under endpoints:"
        )
    config = _with_notice(source.config, name, notice)
    with source.database.read() as connection:
        newest = anomalies.query(connection, stream=name, limit=1)
        until_ns = newest[0].end_ns + 1 if newest else time.time_ns()
        since_ns = until_ns - PREVIEW_DAYS * DAY_NS
        past = anomalies.query(
            connection, stream=name, since_ns=since_ns, until_ns=until_ns, limit=MAX_SIMULATED
        )
        past_faults = [
            one
            for one in faults.query(connection, stream=name, since_ns=since_ns)
            if one.started_ns < until_ns
        ]
    report = simulate(config, past, past_faults, since_ns, until_ns)
    by_day = [0] * PREVIEW_DAYS
    for _, at_ns, _ in report.sent:
        by_day[min(PREVIEW_DAYS - 1, max(0, int((at_ns - since_ns) // DAY_NS)))] += 1
    return {
        "anomalies": len(past),
        "messages": len(report.sent),
        "pages": report.streams[name].pages if name in report.streams else 0,
        "dropped": len(report.dropped),
        "by_day": by_day,
        "until_ms": until_ns // MS,
        "examples": [
            {"endpoint": endpoint, "at_ms": at_ns // MS, "title": payload.data.title}
            for endpoint, at_ns, payload in report.sent[-20:]
        ],
    }


def _with_notice(config: Config, name: str, notice: str) -> Config:
    """Return a config of one stream that sends from another severity on.

    A preview asks about the rules, not about the age of stored records.
    """
    stream = config.streams[name]
    severity = stream.alerts.severity.model_copy(update={"notice": notice})
    rules = stream.alerts.model_copy(update={"severity": severity, "max_age": None})
    return config.model_copy(update={"streams": {name: stream.model_copy(update={"alerts": rules})}})


def _deliveries(sent: list[Delivery]) -> list[dict[str, Any]]:
    return [
        {
            "id": str(one.id),
            "alert": str(one.alert_id),
            "endpoint": one.endpoint,
            "kind": one.kind,
            "state": str(one.state),
            "reason": one.reason,
            "attempts": one.attempts,
            "created_ms": one.created_ns // MS,
        }
        for one in sent
    ]


def _alerts(recent: list[AlertRecord]) -> list[dict[str, Any]]:
    return [
        {
            "id": str(one.alert_id),
            "stream": one.stream,
            "group": one.group_key,
            "severity": one.severity,
            "urgency": one.urgency.value,
            "state": one.state.value,
            "rule": one.rule,
            "acked_by": one.acked_by,
            "suppressed_by": one.suppressed_by,
            "count": one.count,
            "opened_ms": one.opened_ns // MS,
        }
        for one in recent
    ]
