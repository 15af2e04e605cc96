"""The author of the request, and the audit log."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field

from pipeline.api.context import Context, ListFilter, Name, Page
from pipeline.api.direct_answers import api_router
from pipeline.core.iso_times import show_time
from storage.access import audit
from storage.access.audit import AuditEntry, AuditFilter

router = api_router(tags=["access"])


class Session(BaseModel):
    """Author of the request: name, rights, and whether a logout is possible."""

    name: str
    kind: str = Field(description="key, session, or local: a server of this machine without keys")
    scope: str
    streams: list[str] = Field(description="empty, with no teams: every stream")
    teams: list[str]


class AuditItem(BaseModel):
    """One change; ``detail`` has the values before and after, never a secret."""

    id: int
    at: str | None
    actor: str
    kind: str
    key_id: str | None
    address: str | None
    action: str
    object: str
    stream: str | None
    detail: dict[str, Any]


class AuditQuery(ListFilter):
    """Changes by author, action, stream and time."""

    actor: Name | None = Field(None, description="only changes by this name")
    action: Name | None = Field(None, description="only this action, or a group such as alert")


@router.get("/session")
def read_session(context: Context) -> Session:
    """Return the author of this request and the rights."""
    return Session(**context.principal.as_dict())


@router.get("/audit")
def list_changes(context: Context, query: Annotated[AuditQuery, Query()]) -> Page[AuditItem]:
    """Return changes, the newest first."""
    bounds = query.bounds(context, int)
    streams = [bounds.stream] if isinstance(bounds.stream, str) else bounds.stream
    which = AuditFilter(
        streams,
        query.actor,
        query.action,
        bounds.since_ns,
        bounds.until_ns,
        None if bounds.after is None else bounds.after[0],
    )
    with context.database.read() as connection:
        found = audit.query(connection, which, query.limit + 1)
    return query.page(found, _item, lambda one: (one.id,))


def _item(one: AuditEntry) -> AuditItem:
    return AuditItem(
        id=one.id,
        at=show_time(one.created_ns),
        actor=one.actor,
        kind=one.actor_kind,
        key_id=one.key_id,
        address=one.address,
        action=one.action,
        object=one.object,
        stream=one.stream,
        detail=one.detail,
    )
