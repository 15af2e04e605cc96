"""Recorded points of one series, and lanes of anomalies over many."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import pyarrow as pa
from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field

from pipeline.api.context import Context, Name, SeriesName, require_stream, time_range
from pipeline.api.direct_answers import api_router
from pipeline.core.iso_times import show_time
from pipeline.core.types import Anomaly, Severity
from pipeline.services.plot_points import PlotView, plot_points
from storage.history.parquet import UNBOUNDED
from storage.results import anomalies

router = api_router(tags=["series"])

ARROW_MEDIA_TYPE = "application/vnd.apache.arrow.stream"
DAY_SECONDS = 86_400
MAX_LANE_ANOMALIES = 50_000
_LEVELS = {severity: level for level, severity in enumerate(Severity, 1)}


class Points(BaseModel):
    """Columns of equal length; a missing number is null."""

    time_ns: list[int]
    value: list[float | None]
    expected: list[float | None]
    lower: list[float | None]
    upper: list[float | None]
    flag: list[bool]
    surprise: list[float | None]


class Lane(BaseModel):
    """Severity of one series: (first bucket, last bucket, level) of each run."""

    stream: str
    series: str
    runs: list[tuple[int, int, int]] = Field(examples=[[(12, 14, 3)]])


class Lanes(BaseModel):
    """Series with anomalies, the worst first. Level 1 is info, 4 is critical."""

    start: str | None
    end: str | None
    buckets: int
    lanes: list[Lane]
    complete: bool = Field(description="false: older anomalies were left out; ask for a shorter range")


class RangeFilter(BaseModel):
    """A time range; the default is the last day."""

    model_config = ConfigDict(extra="forbid")

    since: datetime | None = Field(
        None, alias="from", description="earliest time (default: a day before `to`)"
    )
    until: datetime | None = Field(None, alias="to", description="latest time, exclusive (default: now)")


class PointFilter(RangeFilter):
    """Points of one channel of one series."""

    stream: Name
    series: SeriesName
    channel: Name | None = Field(None, description="default: the first one")
    width: int = Field(1000, ge=1, le=10_000, description="pixels of the plot")
    format: Literal["json", "arrow"] = "json"


class LaneFilter(RangeFilter):
    """Lanes of one stream or of all."""

    stream: Name | None = Field(None, description="only this stream")
    buckets: int = Field(200, ge=1, le=2000)


@router.get("/points", responses={200: {"content": {ARROW_MEDIA_TYPE: {}}}}, response_model=Points)
def read_points(context: Context, query: Annotated[PointFilter, Query()]) -> Any:
    """Return the lowest, highest and flagged points of each pixel, with verdicts."""
    require_stream(context.config, query.stream)
    since_ns, until_ns = time_range(query.since, query.until, DAY_SECONDS)
    channel = query.channel or context.config.streams[query.stream].channels[0]
    view = PlotView(query.stream, query.series, channel, since_ns, until_ns, query.width)
    table = plot_points(context.config, view)
    if query.format == "arrow":
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return Response(sink.getvalue().to_pybytes(), media_type=ARROW_MEDIA_TYPE)
    names = ("value", "expected", "lower", "upper", "surprise")
    columns = {name: [_finite(one) for one in table.column(name).to_pylist()] for name in names}
    return Points(time_ns=table.column("time").to_pylist(), flag=table.column("flag").to_pylist(), **columns)


@router.get("/lanes")
def read_lanes(context: Context, query: Annotated[LaneFilter, Query()]) -> Lanes:
    """Return the severity over time of all series that have anomalies in the range."""
    since_ns, until_ns = time_range(query.since, query.until, DAY_SECONDS)
    with context.database.read() as connection:
        found = anomalies.query(
            connection,
            stream=context.streams(query.stream),
            since_ns=since_ns,
            until_ns=until_ns,
            limit=MAX_LANE_ANOMALIES + 1,
        )
    by_series: dict[tuple[str, str], list[Anomaly]] = {}
    for anomaly in found[:MAX_LANE_ANOMALIES]:
        by_series.setdefault((anomaly.stream, anomaly.series), []).append(anomaly)
    lanes = [
        Lane(stream=of, series=name, runs=severity_runs(some, since_ns, until_ns, query.buckets))
        for (of, name), some in by_series.items()
    ]
    lanes.sort(key=lambda lane: -max(level for _, _, level in lane.runs))
    return Lanes(
        start=show_time(since_ns),
        end=show_time(until_ns),
        buckets=query.buckets,
        lanes=lanes,
        complete=len(found) <= MAX_LANE_ANOMALIES,
    )


def severity_runs(
    found: list[Anomaly], since_ns: int, until_ns: int, buckets: int
) -> list[tuple[int, int, int]]:
    """Return runs of buckets with the same highest level, of those with an anomaly.

    Args:
        found: Anomalies of one series that overlap the range.
        since_ns: Start of the range.
        until_ns: End of the range, exclusive.
        buckets: Number of buckets of equal length.
    """
    levels = [0] * buckets
    for anomaly in found:
        first, last = (
            min(buckets - 1, max(0, (ns - since_ns) * buckets // (until_ns - since_ns)))
            for ns in (anomaly.began_ns, anomaly.lasted_until_ns)
        )
        for bucket in range(first, last + 1):
            levels[bucket] = max(levels[bucket], _LEVELS[anomaly.severity])
    runs: list[tuple[int, int, int]] = []
    for bucket, level in enumerate(levels):
        if level and runs and runs[-1][1] == bucket - 1 and runs[-1][2] == level:
            runs[-1] = (runs[-1][0], bucket, level)
        elif level:
            runs.append((bucket, bucket, level))
    return runs


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < UNBOUNDED else None
