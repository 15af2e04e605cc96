"""Live events (server-sent events)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from pipeline.api.context import Context, Name, require_stream
from pipeline.api.direct_answers import api_router
from pipeline.api.events import EventKind, EventMonitor, EventStream, Selection

router = api_router(tags=["events"])


class EventFilter(BaseModel):
    """Events of a kind and of a stream."""

    model_config = ConfigDict(extra="forbid")

    stream: Name | None = Field(None, description="only this stream, and what concerns all")
    kind: list[EventKind] | None = Field(None, description="default: all kinds")
    after: str | None = Field(None, max_length=100, description="as the header Last-Event-ID")


@router.get("/events", responses={200: {"content": {"text/event-stream": {}}}})
async def stream_events(
    request: Request,
    context: Context,
    query: Annotated[EventFilter, Query()],
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> Any:
    """Send events as they happen, as text/event-stream.

    `anomaly`: opened, closed or of another severity; `alert`: of another state; `fault`: begun or ended;
    `deliveries`: messages were queued or sent; `progress`: records were read; `reset`: events were
    missed, read the lists again; `renew`: the connection ends as planned, connect again. `ready` comes
    first: what was read before it may lack an event. With Last-Event-ID, or the id of `ready`, the events
    that followed it are sent first.
    """
    monitor: EventMonitor = request.app.state.monitor
    chosen = context.streams(query.stream)
    if query.stream is not None:
        require_stream(context.config, query.stream)
    if monitor.full:
        raise HTTPException(503, "too many readers of events; close some pages of the dashboard")
    streams = {chosen} if isinstance(chosen, str) else chosen
    return EventStream(monitor, Selection(query.kind, streams), last_event_id or query.after)
