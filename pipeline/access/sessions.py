"""Sessions of browsers; they end by time, logout or a revoked key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from pipeline.access.api_keys import hash_secret
from pipeline.access.principal import Principal
from pipeline.access.scopes import Scope
from pipeline.config.serve import ServeConfig
from pipeline.core.durations import SECOND_NS
from storage.access import audit, keys, sessions
from storage.access.audit import ActorKind, Change
from storage.access.sessions import WebSession

MAX_TOKEN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Rights:
    """Rights of a person who has logged in."""

    name: str
    scope: Scope
    streams: Sequence[str] = ()
    teams: Sequence[str] = ()
    key_id: str | None = None


def start_session(
    connection: Connection, rights: Rights, serve: ServeConfig, address: str | None, now_ns: int
) -> str:
    """Store a session and return its new token; a token of the browser is never taken.

    Args:
        connection: A transaction.
        rights: Rights of the person.
        serve: Settings with the times of a session.
        address: Address of the browser.
        now_ns: Current time.
    """
    token = secrets.token_urlsafe(32)
    session = WebSession(
        hash_secret(token),
        rights.key_id,
        rights.name,
        rights.scope.value,
        list(rights.streams),
        list(rights.teams),
        now_ns,
        now_ns,
        now_ns + int(serve.session_max.total_seconds()) * SECOND_NS,
    )
    sessions.add(connection, session, now_ns - _idle_ns(serve))
    actor = _principal(session, address).actor
    audit.add(connection, actor, Change("session.login", "dashboard", None, {"scope": session.scope}), now_ns)
    return token


def find_session(
    connection: Connection, token: str, serve: ServeConfig, address: str | None, now_ns: int
) -> tuple[WebSession, Principal] | None:
    """Return the session of a token and its author; None if it has ended.

    Args:
        connection: A connection.
        token: The cookie.
        serve: Settings with the times of a session.
        address: Address of the request.
        now_ns: Current time.
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        return None
    found = sessions.get(connection, hash_secret(token))
    if found is None or now_ns >= min(found.expires_ns, found.seen_ns + _idle_ns(serve)):
        return None
    if found.key_id is not None:
        key = keys.get(connection, found.key_id)
        if key is None or not key.is_valid(now_ns):
            return None
    return found, _principal(found, address)


def end_session(connection: Connection, token: str, principal: Principal | None, now_ns: int) -> None:
    """Delete the session of a token, and write the logout down.

    Args:
        connection: A transaction.
        token: The cookie.
        principal: Author of the session, None if it is not valid.
        now_ns: Current time.
    """
    if sessions.end(connection, hash_secret(token)) and principal is not None:
        audit.add(connection, principal.actor, Change("session.logout", "dashboard"), now_ns)


def csrf_token(token: str) -> str:
    """Return the token against forged requests, which belongs to one session or form."""
    digest = hmac.new(token.encode("utf-8", "surrogatepass"), b"forewatch csrf", hashlib.sha256).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


def is_csrf_token(given: str, token: str) -> bool:
    """Return whether ``given`` is the token of this session or form, in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), csrf_token(token).encode())


def _idle_ns(serve: ServeConfig) -> int:
    return int(serve.session_idle.total_seconds()) * SECOND_NS


def _principal(session: WebSession, address: str | None) -> Principal:
    return Principal(
        session.name,
        ActorKind.SESSION,
        Scope(session.scope),
        tuple(session.streams),
        tuple(session.teams),
        session.key_id,
        address,
        f"session {session.token_hash.hex()[:16]}",
    )
