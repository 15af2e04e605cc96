"""Read-only check of endpoints of alerts. Nothing is sent."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from pydantic import BaseModel

from pipeline.alerts.formats import FORMATS
from pipeline.alerts.messages.payload import encode
from pipeline.alerts.sample import sample_payload
from pipeline.alerts.transport.base import Message
from pipeline.alerts.transport.email import EmailSender
from pipeline.alerts.transport.http import tls
from pipeline.alerts.transport.ssrf import ForbiddenAddress, allowed_networks, connect_allowed
from pipeline.config.endpoints import EmailEndpoint, HttpEndpoint, KafkaEndpoint
from pipeline.config.field_types import Secret
from pipeline.config.kafka_security import client_security
from pipeline.config.schema import Config
from pipeline.core.errors import ConfigError
from pipeline.core.secret_text import hide_secrets

TIMEOUT_SECONDS = 10.0
_PORTS = {"http": 80, "https": 443}
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class EndpointProbe:
    """Result of the check of an endpoint or an output."""

    endpoint: str
    usable: bool
    message: str


def probe_endpoints(config: Config) -> list[EndpointProbe]:
    """Check all endpoints of a config."""
    return [probe_place(name, endpoint, _connect) for name, endpoint in config.endpoints.items()]


def probe_place(name: str, endpoint: Model, connect: Callable[[Model], str]) -> EndpointProbe:
    """Read the secrets of an endpoint or an output, and connect.

    Args:
        name: What the result is called.
        endpoint: Part of the config.
        connect: Returns what was reached, or raises why not.
    """
    try:
        secrets = [secret.reveal().get_secret_value() for secret in _secrets(endpoint)]
    except ConfigError as error:
        return EndpointProbe(name, False, str(error))
    if "" in secrets:
        return EndpointProbe(name, False, "a secret is empty; write it to the variable or file")
    try:
        return EndpointProbe(name, True, connect(endpoint))
    except ForbiddenAddress as error:
        why = f"refused: {error}"
    except Exception as error:  # clients of Kafka, mail and TLS have errors of their own
        text = getattr(error, "strerror", None) or str(error)
        why = f"{text or type(error).__name__}"
    for secret in secrets:
        if len(secret) >= 4:
            why = why.replace(secret, "***")
    return EndpointProbe(name, False, hide_secrets(" ".join(why.split())))


def _secrets(part: object) -> Iterator[Secret]:
    """Yield the secrets in a part of the config, however deep."""
    if isinstance(part, Secret):
        yield part
    elif isinstance(part, BaseModel):
        for field in type(part).model_fields:
            yield from _secrets(getattr(part, field))
    elif isinstance(part, dict):
        for value in part.values():
            yield from _secrets(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _secrets(value)


def _connect(endpoint: BaseModel) -> str:
    """Connect, and return what was reached. Raises the errors of the transport."""
    if isinstance(endpoint, EmailEndpoint):
        return _log_in(endpoint)
    if isinstance(endpoint, KafkaEndpoint):
        return _find_topic(endpoint)
    assert isinstance(endpoint, HttpEndpoint)
    payload = sample_payload()
    message = Message(uuid4(), "forewatch/check", encode(payload), payload, datetime.now(UTC))
    call = FORMATS[endpoint.type].render(endpoint, message)  # type: ignore[attr-defined]
    return _reach(call.url, endpoint.allow, endpoint.ca)


def _reach(url: str, allow: list[str], ca: Path | None) -> str:
    """Connect to the host of a URL, and return what was reached."""
    parts = urlsplit(url)
    host, encrypted = parts.hostname or "", parts.scheme == "https"
    port = parts.port or _PORTS[parts.scheme]
    plain = connect_allowed(host, port, allowed_networks(allow), TIMEOUT_SECONDS, encrypted=encrypted)
    with plain:
        if encrypted:
            with tls(ca).wrap_socket(plain, server_hostname=host) as secure:
                return f"{host}:{port} answers with {secure.version()}, and its certificate is valid"
    return f"{host}:{port} answers"


def _log_in(endpoint: EmailEndpoint) -> str:
    server = EmailSender(endpoint, lambda _: None).connect()
    try:
        if endpoint.user is not None and endpoint.password is not None:
            server.login(endpoint.user, endpoint.password.reveal().get_secret_value())
        login = f" and accepts {endpoint.user}" if endpoint.user is not None else ""
        return f"{endpoint.host}:{endpoint.port} answers{login}"
    except smtplib.SMTPAuthenticationError as error:
        raise ConfigError(f"the mail server refuses user {endpoint.user} ({error.smtp_code})") from None
    finally:
        server.close()


def _find_topic(endpoint: KafkaEndpoint) -> str:
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(
        bootstrap_servers=endpoint.brokers,
        request_timeout_ms=int(TIMEOUT_SECONDS * 1000),
        allow_auto_create_topics=False,
        **client_security(endpoint.security, endpoint.password),
    )
    try:
        if not (found := consumer.partitions_for_topic(endpoint.topic)):
            raise ConfigError(f"the brokers have no topic {endpoint.topic}, or hide it from this user")
        return f"topic {endpoint.topic} has {len(found)} partitions"
    finally:
        consumer.close()
