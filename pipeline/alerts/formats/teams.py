"""Microsoft Teams: a workflow with the trigger "when a Teams webhook request is received" takes a message
with an Adaptive Card 1.4.

Texts from outside are text runs, in which Markdown has no effect. A message has at most 28 KB.
"""

from __future__ import annotations

from typing import Any

from pipeline.alerts.formats.common import JSON, address, cut, dumps, headers, http_secrets
from pipeline.alerts.messages import text
from pipeline.alerts.messages.payload import Alert
from pipeline.alerts.transport.base import Call, Message
from pipeline.config.endpoints import TeamsEndpoint

_COLOUR = {"info": "accent", "warning": "warning", "major": "warning", "critical": "attention"}


def render(endpoint: TeamsEndpoint, message: Message) -> Call:
    """Return the request of a message. Raises ValueError if a secret is missing."""
    card = _card(message.payload.data)
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return Call(
        address(endpoint), dumps({"type": "message", "attachments": [attachment]}), [JSON, *headers(endpoint)]
    )


def secrets(endpoint: TeamsEndpoint) -> list[str]:
    """Return the texts that must not be shown."""
    return http_secrets(endpoint)


def _card(alert: Alert) -> dict[str, Any]:
    ended = alert.status in ("resolved", "retracted")
    colour = "good" if ended else _COLOUR.get(alert.severity, "default")
    heading = _run(alert.title, weight="bolder", size="medium", color=colour)
    body = [_block(heading)]
    body += [_block(_run(f"{line.label}  ", weight="bolder"), _run(line.text)) for line in text.lines(alert)]
    if alert.picture is not None:
        body.append({"type": "Image", "url": alert.picture, "altText": cut(alert.title, 500)})
    body += [_block(_run(line.text, fontType="monospace", isSubtle=True)) for line in text.commands(alert)]
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": cut(alert.title, 500),
        "msteams": {"width": "Full"},
        "body": body,
    }
    if alert.link is not None:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open", "url": alert.link}]
    return card


def _block(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "RichTextBlock", "spacing": "small", "inlines": list(runs)}


def _run(value: str, **style: Any) -> dict[str, Any]:
    return {"type": "TextRun", "text": cut(value, 1500), **style}
