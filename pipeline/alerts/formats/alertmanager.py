"""Prometheus Alertmanager, API v2 (POST /api/v2/alerts): an alert is its label set, over when ``endsAt`` has
passed.

The severity is a label, because people route by it; when it changes, the alert with the old one is ended in
the same request.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.alerts.formats.common import JSON, address, cut, dumps, headers, http_secrets
from pipeline.alerts.messages.payload import Alert, leading_name
from pipeline.alerts.transport.base import Call, Message
from pipeline.config.endpoints import AlertmanagerEndpoint

_RESERVED = {"alertname", "severity", "stream", "alert_id", "channel", "urgency"}


def render(endpoint: AlertmanagerEndpoint, message: Message) -> Call:
    """Return the request of a message. Raises ValueError if a secret is missing."""
    alert = message.payload.data
    ended = alert.status in ("resolved", "retracted")
    posted = [
        _alert(alert, s, message.payload.timestamp if ended or s != alert.severity else None)
        for s in alert.severities
    ]
    return Call(address(endpoint).rstrip("/") + "/api/v2/alerts", dumps(posted), [JSON, *headers(endpoint)])


def secrets(endpoint: AlertmanagerEndpoint) -> list[str]:
    """Return the texts that must not be shown."""
    return http_secrets(endpoint)


def _alert(alert: Alert, severity: str, ended: str | None) -> dict[str, Any]:
    labels = {
        "alertname": "ForewatchAnomaly" if alert.class_ == "data" else "ForewatchFault",
        "severity": severity,
        "stream": alert.stream,
        "alert_id": alert.alert_id,
        "channel": leading_name(alert) if alert.count == 1 else "",
    }
    for name, value in alert.labels.items():
        labels[_label(name)] = cut(value, 500)
    posted: dict[str, Any] = {
        "labels": {k: v for k, v in labels.items() if v},
        "annotations": {"summary": alert.title, "description": cut(alert.text, 4000)},
        "startsAt": alert.opened,
        "endsAt": ended if ended is not None else alert.expires,
    }
    if alert.link is not None:
        posted["generatorURL"] = alert.link
    return posted


def _label(name: str) -> str:
    """Return a label name that Prometheus allows and that replaces none of forewatch."""
    safe = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    safe = f"_{safe}" if not safe or safe[0].isdigit() else safe
    return f"label_{safe}" if safe in _RESERVED or safe.startswith("__") else safe
