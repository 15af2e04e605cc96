"""Rules for the connection to Kafka, of a source or of an endpoint."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator

from pipeline.config.endpoints import KafkaEndpoint
from pipeline.config.inputs import KafkaSourceConfig
from pipeline.config.kafka_security import PROTOCOLS, protocol_of
from pipeline.config.outputs import KafkaOutputConfig
from pipeline.config.problems import Finding, KeyPath
from pipeline.core.secret_text import hide_user

KafkaClientConfig = KafkaSourceConfig | KafkaEndpoint | KafkaOutputConfig

_BROKER = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/@]+):\d{1,5}")
_EXAMPLE = "write security_protocol: SASL_SSL (or SSL, SASL_PLAINTEXT, PLAINTEXT) in `security`"


def client_rules(client: str, at: KeyPath) -> Iterator[Finding]:
    """Yield a finding if the chosen client is not installed."""
    if client == "confluent" and importlib.util.find_spec("confluent_kafka") is None:
        yield Finding(
            (*at, "client"),
            "confluent-kafka is not installed",
            "install forewatch[confluent], or leave this key out",
        )


def connection_rules(client: KafkaClientConfig, at: KeyPath) -> Iterator[Finding]:
    """Yield a finding for each rule that the connection breaks.

    Args:
        client: The source, endpoint or output.
        at: Its path.
    """
    for number, broker in enumerate(client.brokers):
        if not _BROKER.fullmatch(broker):
            yield Finding(
                (*at, "brokers", number),
                f"{hide_user(broker)!r} is not host:port",
                "write for example localhost:9092",
            )
    yield from _protocol_rules(client, at)


def _protocol_rules(client: KafkaClientConfig, at: KeyPath) -> Iterator[Finding]:
    """Check that credentials and certificates do not lead to an unencrypted connection by default."""
    protocol = protocol_of(client.security)
    sasl = client.password is not None or any(name.startswith("sasl") for name in client.security)
    tls = any(name.startswith("ssl") for name in client.security)
    if protocol is None:
        if sasl or tls:
            given = "a password" if client.password is not None else "SASL or TLS settings"
            yield Finding(
                (*at, "security"), f"{given} without a security_protocol would mean plain text", _EXAMPLE
            )
    elif protocol not in PROTOCOLS:
        yield Finding(
            (*at, "security", "security_protocol"),
            f"{protocol!r} is not a security protocol",
            f"choose one of {', '.join(PROTOCOLS)}",
        )
    elif sasl and not protocol.startswith("SASL_"):
        yield Finding(
            (*at, "security", "security_protocol"),
            f"{protocol} does not use the user and password",
            "write SASL_SSL, or remove the SASL settings",
        )
    elif tls and "SSL" not in protocol:
        yield Finding(
            (*at, "security", "security_protocol"),
            f"{protocol} does not use the TLS settings",
            "write SSL or SASL_SSL, or remove the TLS settings",
        )


def sends_password_in_clear(client: KafkaClientConfig) -> bool:
    """Return whether the client is configured to log in over a connection without TLS."""
    return protocol_of(client.security) == "SASL_PLAINTEXT"
