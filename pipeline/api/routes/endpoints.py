"""Endpoints and their health, and a preview of the messages under other rules."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from pipeline.alerts.simulation import simulate
from pipeline.api.context import Context, Page, require_stream
from pipeline.config.schema import Config
from pipeline.core.errors import InputError
from pipeline.core.iso_times import show_time
from pipeline.core.types import Severity
from storage.alerting import deliveries, endpoints
from storage.results import anomalies, faults

router = APIRouter(tags=["alerts"])

DAY_NS = 86_400 * 10**9
MAX_SIMULATED = 5_000
PREVIEW_DAYS = 7


class EndpointItem(BaseModel):
    """One endpoint of the config and its health."""

    name: str
    type: str
    pending: int = Field(description="deliveries that wait")
    delivered: str | None = Field(description="last success")
    failing: str | None = Field(description="since when every attempt fails")
    disabled: str | None = Field(description="since when nothing is sent")
    reason: str | None


class PreviewMessage(BaseModel):
    """One message of a preview."""

    endpoint: str
    at: str | None
    title: str


class Preview(BaseModel):
    """Messages that a stream would have sent in its last week; nothing is sent."""

    anomalies: int
    messages: int
    pages: int
    dropped: int = Field(description="anomalies in no message")
    by_day: list[int]
    until: str | None
    examples: list[PreviewMessage] = Field(description="the newest messages")


@router.get("/endpoints")
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


@router.get("/streams/{stream}/preview")
def preview(
    context: Context, stream: Annotated[str, Path(max_length=500)], notice: Annotated[Severity, Query()]
) -> Preview:
    """Route the anomalies of the last week with another notice level."""
    require_stream(context.config, stream)
    if not context.config.endpoints:
        raise InputError(
            "the config has no endpoint, so that no message would be sent; add one under endpoints:"
        )
    config = _with_notice(context.config, stream, notice)
    with context.database.read() as connection:
        newest = anomalies.query(connection, stream=stream, limit=1)
        until_ns = newest[0].end_ns + 1 if newest else time.time_ns()
        since_ns = until_ns - PREVIEW_DAYS * DAY_NS
        past = anomalies.query(
            connection, stream=stream, since_ns=since_ns, until_ns=until_ns, limit=MAX_SIMULATED
        )
        past_faults = [
            one
            for one in faults.query(connection, stream=stream, since_ns=since_ns)
            if one.started_ns < until_ns
        ]
    report = simulate(config, past, past_faults, since_ns, until_ns)
    by_day = [0] * PREVIEW_DAYS
    for _, at_ns, _ in report.sent:
        by_day[min(PREVIEW_DAYS - 1, max(0, int((at_ns - since_ns) // DAY_NS)))] += 1
    return Preview(
        anomalies=len(past),
        messages=len(report.sent),
        pages=report.streams[stream].pages if stream in report.streams else 0,
        dropped=len(report.dropped),
        by_day=by_day,
        until=show_time(until_ns),
        examples=[
            PreviewMessage(endpoint=endpoint, at=show_time(at_ns), title=payload.data.title)
            for endpoint, at_ns, payload in report.sent[-20:]
        ],
    )


def _with_notice(config: Config, name: str, notice: Severity) -> Config:
    """Return a config of one stream that sends from another severity on.

    A preview asks about the rules, not about the age of stored records.
    """
    stream = config.streams[name]
    severity = stream.alerts.severity.model_copy(update={"notice": notice.value})
    rules = stream.alerts.model_copy(update={"severity": severity, "max_age": None})
    return config.model_copy(update={"streams": {name: stream.model_copy(update={"alerts": rules})}})
