"""Drift of streams: what the monitor of the daemon watches, and what it found."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field

from pipeline.api.context import Context, require_stream
from pipeline.api.direct_answers import api_router
from pipeline.core.iso_times import show_time
from pipeline.jobs.requests import trainable
from storage.model_store import jobs, monitor_state
from storage.model_store.jobs import Job, JobTrigger, TaskKind
from storage.sql.column_types import safe_tree
from storage.sql.statements import Bounds

router = api_router(tags=["models"])

#: Newest trainings in which drifts are looked for.
MAX_TRAININGS = 200


class DriftItem(BaseModel):
    """One drift, and the training that it asked for."""

    job: int
    at: str | None = Field(description="event time at which it was found")
    since: str | None = Field(description="event time at which the change began")
    statistics: list[str] = Field(description="tests that found it")
    watched: int = Field(description="number of series that were watched")
    series: list[dict[str, Any]] = Field(
        description="those that changed most; `kind` residual: forecasts became worse, input: values changed"
    )


class DriftView(BaseModel):
    """Drift of one stream."""

    watched: bool = Field(description="the daemon looks for drift in this stream")
    saved: str | None = Field(description="when the state of the monitor was stored last")
    quiet_until: str | None = Field(description="event time until which no further drift is reported")
    drifts: list[DriftItem]


@router.get("/drift")
def read_drift(context: Context, stream: Annotated[str, Query(max_length=500)]) -> DriftView:
    """Return the drifts of a stream, the newest first, and the state of the monitor."""
    require_stream(context.config, stream)
    chosen = context.config.streams[stream]
    with context.database.read() as connection:
        states = monitor_state.drift(connection, stream)
        trainings = jobs.page(connection, Bounds(stream, limit=MAX_TRAININGS), kind=TaskKind.TRAIN)
    quiet = [one.quiet_until_ns for one in states if one.quiet_until_ns is not None]
    return DriftView(
        watched=chosen.retraining.on_drift and trainable(chosen) and not chosen.of_events,
        saved=show_time(max((one.saved_ns for one in states), default=None)),
        quiet_until=show_time(max(quiet, default=None)),
        drifts=[_drift(one) for one in trainings if one.trigger == JobTrigger.DRIFT],
    )


def _drift(job: Job) -> DriftItem:
    evidence = job.detail.get("drift", {})
    return DriftItem(
        job=job.id,
        at=show_time(evidence.get("at_ns")),
        since=show_time(evidence.get("since_ns")),
        statistics=list(evidence.get("statistics", ())),
        watched=evidence.get("watched", 0),
        series=[_series(one) for one in evidence.get("series", ())],
    )


def _series(one: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one series, with a time that JavaScript can hold."""
    found: dict[str, Any] = safe_tree({name: value for name, value in one.items() if name != "since_ns"})
    return found | {"since": show_time(one.get("since_ns"))}
