"""Sessions of browsers, and logins at an OpenID provider that have begun."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, insert, or_, select, update

from pipeline.core.durations import SECOND_NS
from storage.tables.access import LoginAttemptRow, WebSessionRow

#: Requests of a session within this time are stored once.
SEEN_INTERVAL_NS = 60 * SECOND_NS
#: Time that a person has at the provider.
LOGIN_ATTEMPT_NS = 600 * SECOND_NS


@dataclass(frozen=True, slots=True)
class WebSession:
    """A session; ``key_id`` is its key, None after a login at a provider."""

    token_hash: bytes
    key_id: str | None
    name: str
    scope: str
    streams: list[str]
    teams: list[str]
    created_ns: int
    seen_ns: int
    expires_ns: int


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """A login that has begun; ``browser_hash`` is of a cookie of the browser."""

    state_hash: bytes
    browser_hash: bytes
    nonce: str
    verifier: str
    target: str
    created_ns: int


_SESSION = [getattr(WebSessionRow, name) for name in WebSession.__slots__]
_ATTEMPT = [getattr(LoginAttemptRow, name) for name in LoginAttempt.__slots__]


def add(connection: Connection, session: WebSession, oldest_seen_ns: int) -> None:
    """Insert a session, and delete those that have ended.

    Args:
        connection: A transaction.
        session: The session.
        oldest_seen_ns: sessions that were not used since then have ended.
    """
    ended = or_(WebSessionRow.expires_ns <= session.created_ns, WebSessionRow.seen_ns < oldest_seen_ns)
    connection.execute(delete(WebSessionRow).where(ended))
    connection.execute(insert(WebSessionRow).values(asdict(session)))


def get(connection: Connection, token_hash: bytes) -> WebSession | None:
    """Return a session, ended or not."""
    row = connection.execute(select(*_SESSION).where(WebSessionRow.token_hash == token_hash)).one_or_none()
    return None if row is None else WebSession(*row)


def note_use(connection: Connection, token_hash: bytes, now_ns: int) -> None:
    """Store the time of the last request."""
    connection.execute(
        update(WebSessionRow).where(WebSessionRow.token_hash == token_hash).values(seen_ns=now_ns)
    )


def end(connection: Connection, token_hash: bytes) -> bool:
    """Delete a session; return whether it existed."""
    return (
        connection.execute(delete(WebSessionRow).where(WebSessionRow.token_hash == token_hash)).rowcount > 0
    )


def begin_login(connection: Connection, attempt: LoginAttempt) -> None:
    """Store a login that begins, and delete those that took too long."""
    late = LoginAttemptRow.created_ns < attempt.created_ns - LOGIN_ATTEMPT_NS
    connection.execute(delete(LoginAttemptRow).where(late))
    connection.execute(insert(LoginAttemptRow).values(asdict(attempt)))


def take_login(connection: Connection, state_hash: bytes, now_ns: int) -> LoginAttempt | None:
    """Delete and return a login that has begun; None if there is none in time."""
    statement = delete(LoginAttemptRow).where(LoginAttemptRow.state_hash == state_hash).returning(*_ATTEMPT)
    row = connection.execute(statement).one_or_none()
    if row is None or row.created_ns < now_ns - LOGIN_ATTEMPT_NS:
        return None
    return LoginAttempt(*row)
