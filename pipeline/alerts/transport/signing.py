"""Signatures of Standard Webhooks 1.0 (https://www.standardwebhooks.com).

A signature is the HMAC-SHA256 of id, time of the attempt and body.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

_PREFIX = "whsec_"


def message_id(delivery: UUID) -> str:
    """Return the ``webhook-id`` of a delivery, the same for every attempt."""
    return f"msg_{delivery.hex}"


def check_secret(secret: str) -> str:
    """Return ``secret`` if it can sign. Raises ValueError, whose text does not contain it."""
    if not secret.startswith(_PREFIX):
        raise ValueError(
            "a webhook secret must begin with whsec_; `forewatch endpoints secret` generates one"
        )
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(
            "a webhook secret must be whsec_ and base64; `forewatch endpoints secret` generates one"
        ) from None
    if not 24 <= len(key) <= 64:
        raise ValueError(
            f"a webhook secret must have 24 to 64 bytes, this one has {len(key)}; "
            "`forewatch endpoints secret` generates one"
        )
    return secret


def signed_headers(
    secrets: Sequence[str], delivery: UUID, attempt: datetime, body: bytes
) -> list[tuple[str, str]]:
    """Return the three headers, with one signature for each secret.

    Args:
        secrets: Secrets that begin with whsec_.
        delivery: Id of the delivery.
        attempt: Aware time of this attempt.
        body: The payload, byte for byte.
    """
    from standardwebhooks import Webhook

    identity, text = message_id(delivery), body.decode()
    signatures = " ".join(Webhook(secret).sign(identity, attempt, text) for secret in secrets)
    return [
        ("webhook-id", identity),
        ("webhook-timestamp", str(int(attempt.timestamp()))),
        ("webhook-signature", signatures),
    ]


def new_secret() -> str:
    """Return a secret of 32 random bytes."""
    import secrets

    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
