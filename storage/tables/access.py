"""Tables of access: keys, sessions, the audit log, kept answers.

No column holds a secret: of keys and tokens only their SHA-256 is stored.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from storage.sql.column_types import RowId, SafeText
from storage.tables.stream import Base


class ApiKeyRow(Base):
    """An API key; a revoked one is kept, so that the audit log can be read."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_created_ns", "created_ns"),)

    id: Mapped[str] = mapped_column(primary_key=True)  # the public part of the key
    name: Mapped[str] = mapped_column(SafeText)
    secret_hash: Mapped[bytes]
    scope: Mapped[str]
    streams: Mapped[list[str]]  # empty, with no teams: every stream
    teams: Mapped[list[str]]
    author: Mapped[str] = mapped_column(SafeText)
    created_ns: Mapped[int]
    expires_ns: Mapped[int | None]
    revoked_ns: Mapped[int | None]
    used_ns: Mapped[int | None]  # the last use, to the minute


class WebSessionRow(Base):
    """A session of a browser, made by a key (``key_id``) or by an OpenID provider."""

    __tablename__ = "web_sessions"
    __table_args__ = (Index("ix_web_sessions_expires_ns", "expires_ns"),)

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    key_id: Mapped[str | None]
    name: Mapped[str] = mapped_column(SafeText)
    scope: Mapped[str]
    streams: Mapped[list[str]]
    teams: Mapped[list[str]]
    created_ns: Mapped[int]
    seen_ns: Mapped[int]
    expires_ns: Mapped[int]


class LoginAttemptRow(Base):
    """A login at an OpenID provider that has begun; it is deleted by its first answer."""

    __tablename__ = "login_attempts"
    __table_args__ = (Index("ix_login_attempts_created_ns", "created_ns"),)

    state_hash: Mapped[bytes] = mapped_column(primary_key=True)
    browser_hash: Mapped[bytes]  # of the cookie of the browser that began
    nonce: Mapped[str]
    verifier: Mapped[str]
    target: Mapped[str] = mapped_column(SafeText)
    created_ns: Mapped[int]


class AuditRow(Base):
    """One change: the actor, the action, its object, the values before and after."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_created_ns", "created_ns"),
        Index("ix_audit_entries_stream_id", "stream", "id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    created_ns: Mapped[int]
    actor: Mapped[str] = mapped_column(SafeText)
    actor_kind: Mapped[str]
    key_id: Mapped[str | None]
    address: Mapped[str | None]
    action: Mapped[str]
    object: Mapped[str] = mapped_column(SafeText)
    stream: Mapped[str | None]
    detail: Mapped[dict[str, Any]]


class KeptAnswerRow(Base):
    """Answer to a request with an idempotency key; no ``status``: in progress."""

    __tablename__ = "kept_answers"
    __table_args__ = (Index("ix_kept_answers_created_ns", "created_ns"),)

    id: Mapped[bytes] = mapped_column(primary_key=True)  # hash of the actor and the idempotency key
    request_hash: Mapped[bytes]
    status: Mapped[int | None] = mapped_column(Integer)
    media_type: Mapped[str | None]
    body: Mapped[bytes | None]
    created_ns: Mapped[int]
