"""Endpoints and their health."""

from __future__ import annotations

from pydantic import BaseModel, Field

from pipeline.api.context import Context, Page
from pipeline.api.direct_answers import api_router, shared
from pipeline.core.iso_times import show_time
from storage.alerting import deliveries, endpoints

router = api_router(tags=["alerts"])


class EndpointItem(BaseModel):
    """One endpoint of the config and its health."""

    name: str
    type: str
    pending: int = Field(description="deliveries that wait")
    delivered: str | None = Field(description="last success")
    failing: str | None = Field(description="since when every attempt fails")
    disabled: str | None = Field(description="since when nothing is sent")
    reason: str | None


@router.get("/endpoints")
@shared
def list_endpoints(context: Context) -> Page[EndpointItem]:
    """Return the endpoints of the config with their health."""
    with context.database.read() as connection:
        states = endpoints.states(connection)
        backlog = deliveries.backlog(connection)
    return Page(
        items=[
            EndpointItem(
                name=name,
                type=endpoint.type,
                pending=backlog.get(name, (0, 0))[0],
                delivered=show_time(state.delivered_ns if (state := states.get(name)) else None),
                failing=show_time(state.failing_ns if state else None),
                disabled=show_time(state.disabled_ns if state else None),
                reason=state.reason if state else None,
            )
            for name, endpoint in context.config.endpoints.items()
        ]
    )
