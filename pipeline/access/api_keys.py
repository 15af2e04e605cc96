"""Making, checking and revoking of API keys.

A key is ``fw_ID_SECRET``. The secret has 256 random bits, so one SHA-256 protects it as well as a slow hash
would: there is no shorter list of likely secrets to try.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from pipeline.access.scopes import Scope
from pipeline.core.errors import InputError
from storage.access import audit, keys
from storage.access.audit import Actor, Change
from storage.access.keys import ApiKey

_KEY = re.compile(r"fw_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_KEY_WITHIN = re.compile(r"fw_[0-9a-f]{12}_[A-Za-z0-9_-]{16}")
#: Compared with where no key has the id, so that both cases take the same time.
_NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """Properties of a key to make."""

    name: str
    scope: Scope
    streams: Sequence[str] = ()
    teams: Sequence[str] = ()
    expires_ns: int | None = None


def create_key(connection: Connection, request: KeyRequest, actor: Actor, now_ns: int) -> tuple[str, ApiKey]:
    """Store a new key, and return its text, which is shown once, and its row.

    Args:
        connection: A transaction.
        request: Properties of the key.
        actor: Author of the change.
        now_ns: Current time.

    Raises:
        InputError: A key in force has this name, or the expiry is in the past.
    """
    if not request.name.strip() or len(request.name) > 200:
        raise InputError("the name of a key has 1 to 200 characters")
    if request.expires_ns is not None and request.expires_ns <= now_ns:
        raise InputError("the key would have expired already; give a future time")
    if any(one.name == request.name for one in keys.query(connection)):
        raise InputError(f"a key {request.name!r} exists; revoke it, or choose another name")
    id_, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = ApiKey(
        id=id_,
        name=request.name,
        secret_hash=hash_secret(secret),
        scope=request.scope.value,
        streams=sorted(set(request.streams)),
        teams=sorted(set(request.teams)),
        author=actor.name,
        created_ns=now_ns,
        expires_ns=request.expires_ns,
    )
    keys.add(connection, key)
    detail = {"name": key.name, "scope": key.scope, "streams": key.streams, "teams": key.teams}
    audit.add(connection, actor, Change("key.create", id_, None, detail), now_ns)
    return f"fw_{id_}_{secret}", key


def revoke_key(connection: Connection, text: str, actor: Actor, now_ns: int) -> ApiKey:
    """Revoke the key with this id, beginning of an id, or name; its sessions end, too.

    Args:
        connection: A transaction.
        text: Id, beginning of an id, or name.
        actor: Author of the change.
        now_ns: Current time.

    Raises:
        InputError: There is no such key in force, or more than one.
    """
    found = [one for one in keys.with_prefix(connection, text) if one.revoked_ns is None]
    if len(found) != 1:
        what = "there is no key" if not found else "several keys are called"
        raise InputError(f"{what} {text} in force; `forewatch keys list` lists them by id")
    keys.revoke(connection, [found[0].id], now_ns)
    audit.add(connection, actor, Change("key.revoke", found[0].id, None, {"name": found[0].name}), now_ns)
    return found[0]


def hash_secret(secret: str) -> bytes:
    """Return the hash of the secret part of a key, or of a token of a session."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def is_key(text: str) -> bool:
    """Return whether a text has the shape of a key."""
    return _KEY.fullmatch(text) is not None


def contains_key(text: str) -> bool:
    """Return whether a text contains a key, or the beginning of its secret."""
    return _KEY_WITHIN.search(text) is not None


def key_id(text: str) -> str | None:
    """Return the public part of a text with the shape of a key."""
    found = _KEY.fullmatch(text)
    return None if found is None else found[1]


def find_key(connection: Connection, text: str, now_ns: int) -> ApiKey | None:
    """Return the valid key with this text, None if there is none."""
    found = _KEY.fullmatch(text)
    if found is None:
        return None
    stored = keys.get(connection, found[1])
    expected = _NO_HASH if stored is None else stored.secret_hash
    same = hmac.compare_digest(expected, hash_secret(found[2]))
    return stored if stored is not None and same and stored.is_valid(now_ns) else None
