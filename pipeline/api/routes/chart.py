"""All channels of one series with verdicts, reduced to pixels."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import numpy as np
from fastapi import Query
from numpy.typing import NDArray
from pydantic import Field
from sqlalchemy import Connection, select
from starlette.responses import JSONResponse

from detectors.base import FORECASTERS
from pipeline.alerts.routing.matchers import escape_glob
from pipeline.api.context import ApiContext, Context, Name, SeriesName, require_stream, time_range
from pipeline.api.direct_answers import api_router
from pipeline.api.routes.anomalies import anomaly_detail, visible_anomaly
from pipeline.api.routes.series import RangeFilter
from pipeline.core.durations import DAY_NS, SECOND_NS
from pipeline.core.errors import InputError
from pipeline.core.iso_times import show_time
from pipeline.core.types import Anomaly
from pipeline.services.event_rows import event_rows
from pipeline.services.plot_points import range_around
from storage.history.reduced import (
    MIN_REDUCED_NS,
    ReducedPoints,
    Run,
    View,
    columns_of,
    pixel_starts,
    reduced_rows,
)
from storage.model_store import quarantine
from storage.model_store.quarantine import ExcludedRange
from storage.results import anomalies, labels
from storage.stream_state import positions
from storage.tables.stream import LateRow

router = api_router(tags=["series"])

MS = 1_000_000
DEFAULT_SPAN_NS = 6 * 3600 * 10**9
#: Longest range: a year, and what a comparison needs.
MAX_SPAN_NS = 400 * DAY_NS
MAX_ANOMALIES = 300
MAX_LATE = 500
MAX_RUNS = 200
MAX_GAPS = 500


class ChartFilter(RangeFilter):
    """Series and range; without a range, the last hours before its newest point."""

    stream: Name
    series: SeriesName
    anomaly: UUID | None = Field(None, description="instead of a range: some hundred points around this one")
    width: int = Field(1000, ge=1, le=4000, description="pixels of the plot")


@router.get("/chart", response_model=dict[str, Any])
def read_chart(context: Context, query: Annotated[ChartFilter, Query()]) -> Any:
    """Return all channels of a series for each pixel, and what happened in the range.

    Points with verdicts, anomalies with labels, late points, gaps, excluded ranges, models and forecasters.
    """
    require_stream(context.config, query.stream)
    return JSONResponse(_chart(context, query))


def _chart(context: ApiContext, query: ChartFilter) -> dict[str, Any]:
    stream, series = query.stream, query.series
    since, until = _range(context, query)
    channels = list(context.config.streams[stream].channels)
    points = _reduced(context, query, since, until)
    if query.since is None and points.rows:  # a young series fills the chart
        since = max(since, int(points.time[0]))
    with context.database.read() as connection:
        find = partial(
            anomalies.query,
            connection,
            stream=stream,
            series=escape_glob(series),
            since_ns=since,
            until_ns=until,
            limit=MAX_ANOMALIES,
        )
        of_series, retracted = find(), find(retracted=True)
        reviews = labels.reviews(connection, [one.id for one in of_series])
        excluded = quarantine.query(connection, stream=stream)
        late_ms = _late(connection, stream, series, (since, until))
        events = _events(context, connection, query, (since, until))
    units = context.config.streams[stream].alerts.units
    return {
        "stream": stream,
        "series": series,
        "from_ms": since / MS,
        "to_ms": until / MS,
        "rows": points.rows,
        "channels": channels,
        "units": {name: units[name] for name in channels if name in units},
        **_points(points, channels),
        **events,
        "anomalies": [
            anomaly_detail(context.config, one, reviews.get(one.id)).model_dump(mode="json")
            for one in of_series
        ],
        "retracted": [_retracted(one) for one in retracted],
        "late_ms": late_ms,
        "excluded": _excluded(excluded, series, (since, until)),
    }


def _events(
    context: ApiContext, connection: Connection, query: ChartFilter, bounds: tuple[int, int]
) -> dict[str, Any]:
    """Return the newest events, which take the place of channels in a stream of events."""
    stream = context.config.streams[query.stream]
    if not stream.of_events:
        return {"events": None}
    rows = event_rows(connection, context.history, (query.stream, stream), query.series, bounds)
    limit = -math.log10(stream.target_alarm_rate)
    return {"channels": [], "points": {}, "events": rows, "alarm_surprise": limit}


def _range(context: ApiContext, query: ChartFilter) -> tuple[int, int]:
    """Return the range in ns, by default the last hours before the newest point."""
    if query.anomaly is not None:
        with context.database.read() as connection:
            one = visible_anomaly(context, connection, str(query.anomaly))
        return range_around(context.history, one.stream, one.series, one.began_ns, one.end_ns)
    if query.since is not None or query.until is not None:
        since, until = time_range(query.since, query.until, DEFAULT_SPAN_NS // SECOND_NS)
    else:
        until = _newest_ns(context, query.stream) + 1
        since = until - DEFAULT_SPAN_NS
    if until - since > MAX_SPAN_NS:
        raise InputError("the range is longer than 400 days; choose a shorter one")
    return since, until


def _newest_ns(context: ApiContext, stream: str) -> int:
    with context.database.read() as connection:
        marks = [p.watermark_ns for p in positions.all_of(connection, stream) if p.watermark_ns is not None]
        if marks:
            return max(marks)
        some = anomalies.query(connection, stream=stream, limit=1)
    return some[0].end_ns if some else 10**18


def _reduced(context: ApiContext, query: ChartFilter, since: int, until: int) -> ReducedPoints:
    channels = list(context.config.streams[query.stream].channels)
    if until - since >= MIN_REDUCED_NS:
        view = View(query.stream, query.series, tuple(channels), since, until, query.width)
        return context.reduced.read(context.config.history_path, view)
    table = context.history.read(
        query.stream, series=query.series, since_ns=since, until_ns=until, columns=columns_of(channels)
    )
    time = table.column("time").to_numpy().astype(np.int64)
    return reduced_rows(table, channels, pixel_starts(time, query.width))


def _points(points: ReducedPoints, channels: list[str]) -> dict[str, Any]:
    """Return columns per channel: extremes of value and band, per pixel."""
    return {
        "time_ms": (points.time / MS).tolist(),
        "reduced": len(points.time) < points.rows,
        "points": {
            channel: {
                part: _listed(points.extremes[f"{part}:{channel}"]) if points.rows else []
                for part in ("min", "max", "expected", "lower", "upper")
            }
            for channel in channels
        },
        "models": [_run(one, one.value) for one in points.runs["model"][:MAX_RUNS]],
        "forecasters": [
            _run(one, None if one.value is None else FORECASTERS[int(one.value)])
            for one in points.runs["guard"][:MAX_RUNS]
        ],
        "missing": [{"from_ms": begin / MS, "to_ms": end / MS} for begin, end in points.gaps[:MAX_GAPS]],
    }


def _run(run: Run, name: str | None) -> dict[str, Any]:
    return {"name": name, "from_ms": run.first_ns / MS, "to_ms": run.last_ns / MS}


def _listed(values: NDArray[np.float32]) -> list[float | None]:
    """Return numbers of six digits; a missing one is null."""
    return [None if not math.isfinite(value) else float(f"{value:.6g}") for value in values.tolist()]


def _retracted(one: Anomaly) -> dict[str, Any]:
    """Return where a verdict was that late points have retracted, and when they did."""
    return {
        "id": str(one.id),
        "from_ms": one.began_ns / MS,
        "to_ms": one.lasted_until_ns / MS,
        "revised": show_time(one.revised_ns) if one.revised_ns else None,
    }


def _late(connection: Connection, stream: str, series: str, bounds: tuple[int, int]) -> list[float]:
    """Return the times of late records in ms."""
    found = connection.execute(
        select(LateRow.time_ns)
        .where(LateRow.stream == stream, LateRow.series == series)
        .where(LateRow.time_ns >= bounds[0], LateRow.time_ns < bounds[1])
        .limit(MAX_LATE)
    )
    return [one / MS for one in found.scalars()]


def _excluded(excluded: list[ExcludedRange], series: str, bounds: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the stretches of a series that training leaves out."""
    since, until = bounds
    return [
        {"from_ms": one.start_ns / MS, "to_ms": one.end_ns / MS, "why": one.reason}
        for one in excluded
        if one.series in (None, "", series) and one.end_ns >= since and one.start_ns < until
    ]
