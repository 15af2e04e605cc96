"""The audit log: author, time, address and values of changes; rows are only added."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert, or_, select

from pipeline.core.secret_text import hide_in_tree, hide_secrets
from storage.sql.column_types import delete_older
from storage.sql.statements import where_given
from storage.tables.access import AuditRow


class ActorKind(StrEnum):
    """Kind of proof of the author of a change."""

    KEY = "key"
    SESSION = "session"
    #: A request on the loopback address of a server without keys.
    LOCAL = "local"
    COMMAND = "command"
    DAEMON = "daemon"


@dataclass(frozen=True, slots=True)
class Actor:
    """Author of a change, and the address that it came from."""

    name: str
    kind: ActorKind
    key_id: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One stored change; ``detail`` has values before and after, never a secret."""

    id: int
    created_ns: int
    actor: str
    actor_kind: str
    key_id: str | None
    address: str | None
    action: str
    object: str
    stream: str | None
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """A change to write down, such as ``alert.acknowledge`` of an alert."""

    action: str
    object: str
    stream: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


_COLUMNS = [getattr(AuditRow, name) for name in AuditEntry.__slots__]


def add(connection: Connection, actor: Actor, change: Change, now_ns: int) -> None:
    """Write a change down, in the transaction that makes it.

    Args:
        connection: The transaction.
        actor: Author of the change.
        change: The change; secrets in it are hidden.
        now_ns: Current time.
    """
    values = asdict(change) | {
        "actor": actor.name,
        "actor_kind": actor.kind,
        "key_id": actor.key_id,
        "address": actor.address,
        "created_ns": now_ns,
        "object": hide_secrets(change.object),
        "detail": hide_in_tree(change.detail),
    }
    connection.execute(insert(AuditRow).values(values))


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Conditions on entries; None: no condition.

    ``action`` also stands for the actions below it: ``alert`` for ``alert.acknowledge``. ``before_id`` is the
    last entry of the page before.
    """

    streams: Collection[str] | None = None
    actor: str | None = None
    action: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    before_id: int | None = None


def query(connection: Connection, which: AuditFilter | None = None, limit: int = 50) -> list[AuditEntry]:
    """Return up to ``limit`` entries, the newest first."""
    one = which or AuditFilter()
    of_action = or_(
        AuditRow.action == one.action, AuditRow.action.startswith(f"{one.action}.", autoescape=True)
    )
    statement = where_given(
        select(*_COLUMNS).order_by(AuditRow.id.desc()).limit(limit),
        (one.streams, AuditRow.stream.in_(list(one.streams or ()))),
        (one.actor, AuditRow.actor == one.actor),
        (one.action, of_action),
        (one.since_ns, AuditRow.created_ns >= (one.since_ns or 0)),
        (one.until_ns, AuditRow.created_ns < (one.until_ns or 0)),
        (one.before_id, AuditRow.id < (one.before_id or 0)),
    )
    return [AuditEntry(*row) for row in connection.execute(statement)]


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` older entries, and return their number."""
    return delete_older(connection, AuditRow.created_ns, before_ns, limit)
