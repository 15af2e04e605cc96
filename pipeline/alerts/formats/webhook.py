"""Standard Webhooks 1.0: the stored payload, signed with one secret, or two while it is replaced."""

from __future__ import annotations

from pipeline.alerts.formats.common import JSON, address, headers, http_secrets
from pipeline.alerts.transport.base import Call, Message
from pipeline.alerts.transport.signing import check_secret, signed_headers
from pipeline.config.endpoints import WebhookEndpoint


def render(endpoint: WebhookEndpoint, message: Message) -> Call:
    """Return the request of a message. Raises ValueError if a secret is missing."""
    keys = [check_secret(s.reveal().get_secret_value()) for s in endpoint.secrets]
    signed = signed_headers(keys, message.delivery, message.attempted, message.body)
    return Call(address(endpoint), message.body, [JSON, *signed, *headers(endpoint)])


def secrets(endpoint: WebhookEndpoint) -> list[str]:
    """Return the texts that must not be shown."""
    keys = [s.reveal().get_secret_value() for s in endpoint.secrets]
    return [*keys, *(k.removeprefix("whsec_") for k in keys), *http_secrets(endpoint)]
