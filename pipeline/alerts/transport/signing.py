"""Signatures of Standard Webhooks 1.0 (https://www.standardwebhooks.com): HMAC-SHA256 over id, time of the
attempt and body.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

_PREFIX = "whsec_"


def message_id(delivery: UUID) -> str:
    """The ``webhook-id`` of a delivery: the same for every attempt, so that a receiver can tell a repetition."""
    return f"msg_{delivery.hex}"


def check_secret(secret: str) -> str:
    """``secret`` as it is, if it can sign. Raises ValueError, which never shows it."""
    if not secret.startswith(_PREFIX):
        raise ValueError("a webhook secret begins with whsec_; `forewatch endpoints secret` makes one")
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(
            "what follows whsec_ in a webhook secret is base64; `forewatch endpoints secret` makes one"
        ) from None
    if not 24 <= len(key) <= 64:
        raise ValueError(
            f"a webhook secret has 24 to 64 bytes, this one has {len(key)}; `forewatch endpoints secret` makes one"
        )
    return secret


def signed_headers(
    secrets: Sequence[str], delivery: UUID, attempt: datetime, body: bytes
) -> list[tuple[str, str]]:
    """The three headers, one signature per secret. ``attempt`` (aware) is when this attempt is made."""
    from standardwebhooks import Webhook

    identity, text = message_id(delivery), body.decode()
    signatures = " ".join(Webhook(secret).sign(identity, attempt, text) for secret in secrets)
    return [
        ("webhook-id", identity),
        ("webhook-timestamp", str(int(attempt.timestamp()))),
        ("webhook-signature", signatures),
    ]


def new_secret() -> str:
    """A secret of 32 random bytes."""
    import secrets

    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
