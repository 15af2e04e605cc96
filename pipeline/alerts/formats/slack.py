"""Slack: an incoming webhook with Block Kit blocks (https://docs.slack.dev/reference/block-kit/blocks).

Texts from outside are ``plain_text`` and ``rich_text``, which Slack shows as they are, so that they cannot
contain mentions, links or markup. The fallback ``text`` is markup, so its &, < and > are escaped.
"""

from __future__ import annotations

from typing import Any

from pipeline.alerts.formats.common import JSON, address, cut, dumps, headers, http_secrets
from pipeline.alerts.messages import text
from pipeline.alerts.messages.payload import Alert
from pipeline.alerts.messages.style import RESOLVED_COLOUR, SEVERITY_COLOURS
from pipeline.alerts.transport.base import Call, Message
from pipeline.config.endpoints import SlackEndpoint

_SIGN = {"info": "🔵", "warning": "🟡", "major": "🟠", "critical": "🔴"}


def render(endpoint: SlackEndpoint, message: Message) -> Call:
    """Return the request of a message. Raises ValueError if a secret is missing."""
    alert = message.payload.data
    ended = alert.status in ("resolved", "retracted")
    sign = "🟢" if ended else _SIGN.get(alert.severity, "⚪")
    body = {
        "text": _escaped(cut(f"{sign} {alert.title}", 3000)),
        "attachments": [
            {
                "color": RESOLVED_COLOUR if ended else SEVERITY_COLOURS.get(alert.severity, RESOLVED_COLOUR),
                "blocks": _blocks(alert, sign),
            }
        ],
    }
    return Call(address(endpoint), dumps(body), [JSON, *headers(endpoint)])


def secrets(endpoint: SlackEndpoint) -> list[str]:
    """Return the texts that must not be shown."""
    return http_secrets(endpoint)


def _blocks(alert: Alert, sign: str) -> list[dict[str, Any]]:
    rows = [_row(line.label, line.text) for line in text.lines(alert)]
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": cut(f"{sign} {alert.title}", 150), "emoji": False},
        },
        {"type": "rich_text", "elements": rows},
    ]
    if alert.picture is not None:
        blocks.append({"type": "image", "image_url": alert.picture, "alt_text": cut(alert.title, 2000)})
    commands = "\n".join(line.text for line in text.commands(alert))
    blocks.append(
        {
            "type": "rich_text",
            "elements": [{"type": "rich_text_preformatted", "elements": [_literal(commands)]}],
        }
    )
    return blocks


def _row(label: str, value: str) -> dict[str, Any]:
    bold = {"type": "text", "text": f"{label}  ", "style": {"bold": True}}
    return {"type": "rich_text_section", "elements": [bold, _literal(value + "\n")]}


def _literal(value: str) -> dict[str, Any]:
    return {"type": "text", "text": cut(value, 2900)}


def _escaped(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
