"""SASL and TLS settings of Kafka clients, whose secrets are named and read when they are used.

Also names of topics.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from pipeline.config.field_types import Secret

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


def _checked_topic(name: str) -> str:
    """Return ``name``; raise ValueError if Kafka refuses it as the name of a topic."""
    if re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name) is None or name in (".", ".."):
        raise ValueError(
            "write the name of a Kafka topic: 1 to 249 letters, digits, '.', '_' or '-'. "
            "A pattern is not supported, so list every topic"
        )
    return name


#: Name that Kafka accepts for a topic.
TopicName = Annotated[str, AfterValidator(_checked_topic)]


def _named_secrets(settings: dict[str, Any]) -> dict[str, Any]:
    """Convert each value ``{env: NAME}`` or ``{file: PATH}`` to a secret."""
    return {
        name: Secret.model_validate(value) if _is_reference(value) else value
        for name, value in settings.items()
    }


def _is_reference(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and value.keys() <= {"env", "file"}


KafkaSecurity = Annotated[dict[str, Any], AfterValidator(_named_secrets), WithJsonSchema({"type": "object"})]


def protocol_of(settings: dict[str, Any]) -> str | None:
    """Return the configured security protocol, under the name of either client."""
    protocol = settings.get("security_protocol", settings.get("security.protocol"))
    return None if protocol is None else str(protocol)


def client_security(settings: dict[str, Any], password: Secret | None) -> dict[str, Any]:
    """Return the settings for a client, with the secrets in clear.

    A password without a security protocol means SASL_SSL, because the clients would use plain text.

    Raises:
        SecretMissing: A secret cannot be read.
    """
    revealed = {
        name: value.reveal().get_secret_value() if isinstance(value, Secret) else value
        for name, value in settings.items()
    }
    if password is not None:
        revealed["sasl_plain_password"] = password.reveal().get_secret_value()
        if protocol_of(settings) is None:
            revealed["security_protocol"] = "SASL_SSL"
    return revealed


def secrets_of(settings: dict[str, Any], password: Secret | None) -> Iterator[str]:
    """Yield the secrets in clear, so that they can be hidden in errors. Raises SecretMissing."""
    for value in (*settings.values(), password):
        if isinstance(value, Secret):
            yield value.reveal().get_secret_value()
