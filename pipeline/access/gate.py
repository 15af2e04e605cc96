"""Decision about a request: its author, or the reason for its refusal."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog

from pipeline.access.api_keys import find_key, hash_secret, key_id
from pipeline.access.principal import Principal, local_principal
from pipeline.access.request_limits import RequestLimiter
from pipeline.access.scopes import Scope
from pipeline.access.sessions import find_session
from pipeline.config.schema import Config
from pipeline.config.serve import ServeConfig
from pipeline.core.errors import ConfigError, StorageError
from storage.access import keys, sessions
from storage.access.audit import ActorKind
from storage.sql.database import Database

log = structlog.get_logger(__name__)

#: Interval of the check whether a first key was made.
KEY_CHECK_SECONDS = 1.0
#: Time for which a proof counts without a look into the database: a revoked key is refused so much later.
REMEMBERED_SECONDS = 1.0
MAX_REMEMBERED = 1_000


class ProofKind(StrEnum):
    """Kind of proof of the author of a request."""

    KEY = "key"
    SESSION = "session"
    NOTHING = "nothing"


class Proof(NamedTuple):
    """Proof of a request; ``text`` is the key or the token of the session."""

    kind: ProofKind
    text: str
    address: str | None

    @property
    def digest(self) -> bytes:
        """Hash under which its author is remembered; the text itself is not kept."""
        return hash_secret(f"{self.kind} {self.address} {self.text}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Reason why a request has no author."""

    detail: str
    retry_seconds: int | None = None


class Gate:
    """Finds the author of each request to one server.

    A server of this machine without keys and without an OpenID provider is open to all who reach it, as the
    command line is. The first key ends that, also if it is revoked later.
    """

    def __init__(self, config: Config, database: Database, on_loopback: bool) -> None:
        """Take the settings of ``serve``.

        Args:
            config: The configuration.
            database: Its database.
            on_loopback: Whether the server listens on this machine only.
        """
        self.config = config
        self.serve = config.served or ServeConfig()
        self.database = database
        self.on_loopback = on_loopback
        self.limiter = RequestLimiter(self.serve)
        self._closed = not on_loopback or self.serve.oidc is not None
        self._checked_at = -KEY_CHECK_SECONDS
        self._lock = threading.Lock()
        self._remembered: dict[bytes, tuple[float, Principal]] = {}

    def remembered(self, proof: Proof) -> Principal | None:
        """Return the author that this proof had a moment ago, without the database."""
        if proof.kind is ProofKind.NOTHING:
            is_fresh = time.monotonic() - self._checked_at < KEY_CHECK_SECONDS
            return local_principal(proof.address) if is_fresh and not self._closed else None
        found = self._remembered.get(proof.digest)
        return found[1] if found is not None and time.monotonic() < found[0] else None

    def forget(self) -> None:
        """Look into the database for the next request of everyone; a session has ended."""
        self._remembered = {}

    def author_of(self, proof: Proof) -> Principal | Refusal:
        """Return the author of a request.

        Raises:
            StorageError: The database does not answer.
        """
        until = time.monotonic() + REMEMBERED_SECONDS
        remembered = self._remembered
        if proof.kind is ProofKind.KEY:
            found = self.by_key(proof.text, proof.address)
        elif proof.kind is ProofKind.SESSION:
            found = self.by_session(proof.text, proof.address)
        else:
            found = self.without_proof(proof.address)
        if isinstance(found, Principal) and proof.kind is not ProofKind.NOTHING:
            if len(remembered) >= MAX_REMEMBERED:
                remembered.clear()
            remembered[proof.digest] = (until, found)
        return found

    @property
    def secure_cookies(self) -> bool:
        """True if cookies are for https only: not on this machine without ``url``."""
        return not self.on_loopback or (self.serve.url or "").startswith("https://")

    @property
    def site(self) -> str | None:
        """Host and port of the public address."""
        return None if self.serve.url is None else urlsplit(self.serve.url).netloc

    def login_required(self) -> bool:
        """Return whether requests need a key or a session.

        Raises:
            StorageError: The database does not answer.
        """
        with self._lock:
            if self._closed or time.monotonic() - self._checked_at < KEY_CHECK_SECONDS:
                return self._closed
        with self.database.read() as connection:
            closed = keys.exist(connection)
        with self._lock:
            self._closed, self._checked_at = self._closed or closed, time.monotonic()
            return self._closed

    def require_usable(self) -> None:
        """Check that somebody can log in to a server that other machines reach.

        Raises:
            ConfigError: There is neither a key in force nor an OpenID provider.
        """
        if self.on_loopback or self.serve.oidc is not None:
            return
        with self.database.read() as connection:
            if keys.usable(connection, time.time_ns()):
                return
        raise ConfigError(
            f"serve: {self.serve.host} can be reached from other machines, and there is no API key: make one "
            "with `forewatch keys create NAME --scope admin`, or configure `serve.oidc`"
        )

    def by_key(self, text: str, address: str | None) -> Principal | Refusal:
        """Return the author of a request with a key in its header.

        Raises:
            StorageError: The database does not answer.
        """
        now_ns = time.time_ns()
        with self.database.read() as connection:
            found = find_key(connection, text, now_ns)
        if found is None:
            log.warning("an API key is refused", key=key_id(text), address=address)
            wait = self.limiter.count_failure(address)
            return Refusal(
                "the API key is unknown, revoked or expired; `forewatch keys list` lists keys", wait
            )
        if found.used_ns is None or now_ns - found.used_ns > keys.USE_INTERVAL_NS:
            with suppress(StorageError), self.database.begin() as connection:
                keys.note_use(connection, found.id, now_ns)
        return Principal(
            found.name,
            ActorKind.KEY,
            Scope(found.scope),
            tuple(found.streams),
            tuple(found.teams),
            found.id,
            address,
            f"key {found.id}",
        )

    def by_session(self, token: str, address: str | None) -> Principal | Refusal:
        """Return the author of a request with a cookie.

        Raises:
            StorageError: The database does not answer.
        """
        now_ns = time.time_ns()
        with self.database.read() as connection:
            found = find_session(connection, token, self.serve, address, now_ns)
        if found is None:
            return Refusal("the session has ended; log in again at /login")
        session, principal = found
        if now_ns - session.seen_ns > sessions.SEEN_INTERVAL_NS:
            with suppress(StorageError), self.database.begin() as connection:
                sessions.note_use(connection, session.token_hash, now_ns)
        return principal

    def without_proof(self, address: str | None) -> Principal | Refusal:
        """Return the author of a request with neither a key nor a cookie.

        Raises:
            StorageError: The database does not answer.
        """
        if self.login_required():
            return Refusal(
                "send an API key in the header `Authorization` (scheme Bearer), or log in at /login"
            )
        return local_principal(address)
