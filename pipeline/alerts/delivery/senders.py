"""Choice of the sender for a type of endpoint."""

from __future__ import annotations

from pipeline.alerts.formats import FORMATS
from pipeline.alerts.transport.base import DrawChart, Sender
from pipeline.alerts.transport.http import HttpSender
from pipeline.config.endpoints import EmailEndpoint, EndpointConfig, HttpEndpoint, KafkaEndpoint


def sender_of(endpoint: EndpointConfig, picture: DrawChart) -> Sender:
    """Return the sender of one configured endpoint; it is not connected yet."""
    if isinstance(endpoint, EmailEndpoint):
        from pipeline.alerts.transport.email import EmailSender

        return EmailSender(endpoint, picture)
    if isinstance(endpoint, KafkaEndpoint):
        from pipeline.alerts.transport.kafka import KafkaSender

        return KafkaSender(endpoint)
    assert isinstance(endpoint, HttpEndpoint)
    chosen = FORMATS[endpoint.type]  # type: ignore[attr-defined]
    return HttpSender(
        render=lambda message: chosen.render(endpoint, message),
        secrets=lambda: chosen.secrets(endpoint),
        allow=endpoint.allow,
        ca=endpoint.ca,
        timeout_s=endpoint.timeout.total_seconds(),
    )
