"""The author of a request: a key, a session, or this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.access.scopes import NotPermitted, Scope
from pipeline.access.visibility import visible_streams
from pipeline.config.schema import Config
from storage.access.audit import Actor, ActorKind


@dataclass(frozen=True, slots=True)
class Principal:
    """Author of a request; with neither streams nor teams it sees every stream."""

    name: str
    kind: ActorKind
    scope: Scope
    streams: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    key_id: str | None = None
    address: str | None = None
    #: Names the principal where requests are counted and answers are kept.
    identity: str = "local"

    @property
    def actor(self) -> Actor:
        """Author for the audit log."""
        return Actor(self.name, self.kind, self.key_id, self.address)

    def visible(self, config: Config) -> frozenset[str] | None:
        """Return the streams that it sees; None for all."""
        return visible_streams(config, self.streams, self.teams)

    def require(self, scope: Scope) -> None:
        """Raise NotPermitted if the scope is missing."""
        if not self.scope.includes(scope):
            raise NotPermitted(
                f"this needs the scope {scope}, and {self.name} has {self.scope}; use another key, or ask an "
                f"administrator for one (`forewatch keys create NAME --scope {scope}`)"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return name and rights for the page of the person."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "scope": self.scope.value,
            "streams": list(self.streams),
            "teams": list(self.teams),
        }


def local_principal(address: str | None = None) -> Principal:
    """Return the author of a request to a server of this machine without keys."""
    return Principal("local", ActorKind.LOCAL, Scope.ADMIN, address=address)
