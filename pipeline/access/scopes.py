"""Scopes of keys and sessions. Each includes those before it."""

from __future__ import annotations

from enum import StrEnum

from pipeline.core.errors import ForewatchError


class Scope(StrEnum):
    """Right of a key or session."""

    #: See everything of its streams.
    VIEWER = "viewer"
    #: Acknowledge, label, silence, redeliver, replay dead letters, train, promote, roll back,
    #: cancel and retry jobs.
    OPERATOR = "operator"
    #: See the audit log.
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        """Return whether this scope allows what ``other`` allows."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


class NotPermitted(ForewatchError):
    """The scope, the streams or the request of an actor do not allow this."""
