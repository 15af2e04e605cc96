"""Live events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

router = APIRouter(tags=["events"])


@router.get(
    "/events", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}}
)
async def stream_events(request: Request) -> Any:
    """Send an event when anomalies, alerts, faults or deliveries change."""
    monitor = request.app.state.monitor
    if monitor.full:
        raise HTTPException(503, "too many open pages; close some pages of the dashboard")
    return StreamingResponse(
        monitor.events(), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )
