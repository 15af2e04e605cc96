"""Opsgenie, Alert API (https://docs.opsgenie.com/docs/alert-api): created, acknowledged and closed by alias."""

from __future__ import annotations

from urllib.parse import quote

from pipeline.alerts.formats.common import JSON, address, cut, dumps, headers, http_secrets
from pipeline.alerts.messages import text
from pipeline.alerts.messages.payload import leading_name
from pipeline.alerts.transport.base import Call, Message
from pipeline.config.endpoints import OpsgenieEndpoint

_PRIORITY = {"info": "P4", "warning": "P3", "major": "P2", "critical": "P1"}


def render(endpoint: OpsgenieEndpoint, message: Message) -> Call:
    """Return the request of a message. Raises ValueError if a secret is missing."""
    alert, base = message.payload.data, address(endpoint).rstrip("/")
    key = ("authorization", f"GenieKey {endpoint.key.reveal().get_secret_value()}")
    action = {"acknowledged": "acknowledge", "resolved": "close", "retracted": "close"}.get(
        message.payload.kind
    )
    if action is not None:
        url = f"{base}/v2/alerts/{quote(alert.alert_id, safe='')}/{action}?identifierType=alias"
        body: dict[str, object] = {"source": "forewatch", "note": cut(alert.title, 25_000)}
    else:
        url = f"{base}/v2/alerts"
        body = {
            "message": cut(alert.title, 130),
            "alias": cut(alert.alert_id, 512),
            "description": cut(text.body(alert), 15_000),
            "entity": cut(leading_name(alert), 512),
            "source": "forewatch",
            "priority": _PRIORITY[alert.severity],
            "tags": [cut(alert.stream, 50), alert.severity, alert.class_][:20],
            "details": {cut(k, 100): cut(v, 1000) for k, v in _details(message).items()},
        }
    return Call(url, dumps(body), [JSON, key, *headers(endpoint)])


def secrets(endpoint: OpsgenieEndpoint) -> list[str]:
    """Return the texts that must not be shown."""
    return [endpoint.key.reveal().get_secret_value(), *http_secrets(endpoint)]


def _details(message: Message) -> dict[str, str]:
    """Return the details, all strings: Opsgenie refuses other values."""
    alert = message.payload.data
    known = {
        "rule": alert.rule,
        "dedup_key": alert.dedup_key,
        "opened": alert.opened,
        "count": str(alert.count),
    } | alert.labels
    return (
        known
        | ({"link": alert.link} if alert.link else {})
        | ({"picture": alert.picture} if alert.picture else {})
    )
