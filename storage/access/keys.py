"""API keys: ``fw_ID_SECRET``. The id is public, of the secret a hash is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, insert, or_, select, update

from pipeline.core.durations import SECOND_NS
from storage.tables.access import ApiKeyRow

#: Uses within this time are stored once.
USE_INTERVAL_NS = 60 * SECOND_NS


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. With neither streams nor teams it sees every stream."""

    id: str
    name: str
    secret_hash: bytes
    scope: str
    streams: list[str]
    teams: list[str]
    author: str
    created_ns: int
    expires_ns: int | None = None
    revoked_ns: int | None = None
    used_ns: int | None = None

    def is_valid(self, now_ns: int) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return self.revoked_ns is None and (self.expires_ns is None or now_ns < self.expires_ns)


_COLUMNS = [getattr(ApiKeyRow, name) for name in ApiKey.__slots__]


def add(connection: Connection, key: ApiKey) -> None:
    """Insert a key."""
    connection.execute(insert(ApiKeyRow).values(asdict(key)))


def get(connection: Connection, id_: str) -> ApiKey | None:
    """Return a key by its public id, valid or not."""
    row = connection.execute(select(*_COLUMNS).where(ApiKeyRow.id == id_)).one_or_none()
    return None if row is None else ApiKey(*row)


def exist(connection: Connection) -> bool:
    """Return whether a key was ever made; revoked keys count."""
    return connection.scalar(select(ApiKeyRow.id).limit(1)) is not None


def usable(connection: Connection, now_ns: int) -> bool:
    """Return whether a key is neither revoked nor expired."""
    unexpired = or_(ApiKeyRow.expires_ns.is_(None), ApiKeyRow.expires_ns > now_ns)
    statement = select(ApiKeyRow.id).where(ApiKeyRow.revoked_ns.is_(None), unexpired)
    return connection.scalar(statement.limit(1)) is not None


def query(connection: Connection, *, revoked: bool = False) -> list[ApiKey]:
    """Return keys, the newest first; revoked ones only if asked for."""
    statement = select(*_COLUMNS).order_by(ApiKeyRow.created_ns.desc(), ApiKeyRow.id)
    if not revoked:
        statement = statement.where(ApiKeyRow.revoked_ns.is_(None))
    return [ApiKey(*row) for row in connection.execute(statement)]


def with_prefix(connection: Connection, text: str) -> list[ApiKey]:
    """Return keys whose id begins with ``text``, and those with this name."""
    named = ApiKeyRow.name == text
    begins = ApiKeyRow.id.startswith(text, autoescape=True)
    return [ApiKey(*row) for row in connection.execute(select(*_COLUMNS).where(or_(named, begins)))]


def revoke(connection: Connection, ids: Sequence[str], now_ns: int) -> list[str]:
    """Revoke keys; return the ids of those that were not revoked before."""
    statement = (
        update(ApiKeyRow)
        .where(ApiKeyRow.id.in_(ids), ApiKeyRow.revoked_ns.is_(None))
        .values(revoked_ns=now_ns)
        .returning(ApiKeyRow.id)
    )
    return list(connection.scalars(statement))


def note_use(connection: Connection, id_: str, now_ns: int) -> None:
    """Store the time of the last use."""
    connection.execute(update(ApiKeyRow).where(ApiKeyRow.id == id_).values(used_ns=now_ns))
