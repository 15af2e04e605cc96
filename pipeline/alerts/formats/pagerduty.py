"""PagerDuty, Events API v2 (https://developer.pagerduty.com/docs/send-alert-event): trigger, acknowledge and
resolve by dedup key.
"""

from __future__ import annotations

from typing import Any

from pipeline.alerts.formats.common import JSON, address, cut, dumps, headers, http_secrets
from pipeline.alerts.messages import text
from pipeline.alerts.messages.payload import Alert, leading_name
from pipeline.alerts.transport.base import Call, Message
from pipeline.config.endpoints import PagerDutyEndpoint

_SEVERITY = {"info": "info", "warning": "warning", "major": "error", "critical": "critical"}


def render(endpoint: PagerDutyEndpoint, message: Message) -> Call:
    """Return the request of a message. Raises ValueError if a secret is missing."""
    payload = message.payload
    alert = payload.data
    ended = alert.status in ("resolved", "retracted")
    action = "acknowledge" if payload.kind == "acknowledged" else "resolve" if ended else "trigger"
    key = endpoint.key.reveal().get_secret_value()
    event: dict[str, Any] = {"routing_key": key, "event_action": action, "dedup_key": alert.alert_id}
    if action == "trigger":
        event |= _trigger(alert, payload.timestamp)
    return Call(address(endpoint), dumps(event), [JSON, *headers(endpoint)])


def secrets(endpoint: PagerDutyEndpoint) -> list[str]:
    """Return the texts that must not be shown."""
    return [endpoint.key.reveal().get_secret_value(), *http_secrets(endpoint)]


def _trigger(alert: Alert, timestamp: str) -> dict[str, Any]:
    source = text.where(alert.labels, alert.anomalies[0].series if alert.anomalies else alert.stream)
    event: dict[str, Any] = {
        "client": "forewatch",
        "payload": {
            "summary": cut(alert.title, 1024),
            "source": cut(source, 255),
            "severity": _SEVERITY[alert.severity],
            "timestamp": timestamp,
            "component": cut(leading_name(alert), 255),
            "group": cut(alert.dedup_key, 255),
            "class": f"{alert.class_} alert",
            "custom_details": {
                line.label: cut(line.text, 2000) for line in [*text.lines(alert), *text.commands(alert)]
            },
        },
    }
    if alert.link is not None:
        event["client_url"] = alert.link
        event["links"] = [{"href": alert.link, "text": "Open in forewatch"}]
    if alert.picture is not None:
        event["images"] = [{"src": alert.picture, "alt": "Chart of the series with its expected band"}]
    return event
