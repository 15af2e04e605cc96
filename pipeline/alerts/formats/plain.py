"""Payload of a webhook as plain JSON without a signature; ``webhook-id`` still identifies repetitions."""

from __future__ import annotations

from pipeline.alerts.formats.common import JSON, address, headers, http_secrets
from pipeline.alerts.transport.base import Call, Message
from pipeline.alerts.transport.signing import message_id
from pipeline.config.endpoints import JsonEndpoint


def render(endpoint: JsonEndpoint, message: Message) -> Call:
    """Return the request of a message. Raises ValueError if a secret is missing."""
    return Call(
        address(endpoint),
        message.body,
        [JSON, ("webhook-id", message_id(message.delivery)), *headers(endpoint)],
    )


def secrets(endpoint: JsonEndpoint) -> list[str]:
    """Return the texts that must not be shown."""
    return http_secrets(endpoint)
