"""All channels of one series with verdicts, reduced to pixels."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic import Field
from sqlalchemy import Connection, select
from starlette.responses import JSONResponse

from detectors.base import FORECASTERS
from pipeline.api.context import ApiContext, Context, Name, SeriesName, require_stream, time_range
from pipeline.api.routes.anomalies import anomaly_detail
from pipeline.api.routes.series import RangeFilter
from pipeline.core.durations import SECOND_NS
from pipeline.core.errors import InputError
from storage.model_store import quarantine
from storage.model_store.quarantine import ExcludedRange
from storage.results import anomalies, labels
from storage.stream_state import positions
from storage.tables.stream import LateRow

router = APIRouter(tags=["series"])

MS = 1_000_000
DEFAULT_SPAN_NS = 6 * 3600 * 10**9
#: Longest range that is read at once; the history of one series at 1 s has 2.6 million points in it.
MAX_SPAN_NS = 30 * 86_400 * 10**9
MAX_ANOMALIES = 300
MAX_LATE = 500
_PARTS = ("value", "expected", "lower", "upper")


class ChartFilter(RangeFilter):
    """Series and range; without a range, the last hours before its newest point."""

    stream: Name
    series: SeriesName
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
    columns = ["flag", "guard", "missed", "model", "every", *(f"{p}:{c}" for p in _PARTS for c in channels)]
    table = context.history.read(stream, series=series, since_ns=since, until_ns=until, columns=columns)
    if query.since is None and table.num_rows:  # a young series fills the chart
        since = max(since, int(table.column("time")[0].as_py()))
    with context.database.read() as connection:
        found = anomalies.query(
            connection, stream=stream, series=None, since_ns=since, until_ns=until, limit=5000
        )
        of_series = [one for one in found if one.series == series][:MAX_ANOMALIES]
        reviews = labels.reviews(connection, [one.id for one in of_series])
        excluded = quarantine.query(connection, stream=stream)
        late_ms = _late(connection, stream, series, (since, until))
    units = context.config.streams[stream].alerts.units
    return {
        "stream": stream,
        "series": series,
        "from_ms": since / MS,
        "to_ms": until / MS,
        "rows": table.num_rows,
        "channels": channels,
        "units": {name: units[name] for name in channels if name in units},
        **_points(table, channels, query.width),
        "anomalies": [
            anomaly_detail(context.config, one, reviews.get(one.id)).model_dump(mode="json")
            for one in of_series
        ],
        "late_ms": late_ms,
        "excluded": _excluded(excluded, series, (since, until)),
    }


def _range(context: ApiContext, query: ChartFilter) -> tuple[int, int]:
    """Return the range in ns, by default the last hours before the newest point."""
    if query.since is not None or query.until is not None:
        since, until = time_range(query.since, query.until, DEFAULT_SPAN_NS // SECOND_NS)
    else:
        until = _newest_ns(context, query.stream) + 1
        since = until - DEFAULT_SPAN_NS
    if until - since > MAX_SPAN_NS:
        raise InputError("the range is longer than 30 days; choose a shorter one")
    return since, until


def _newest_ns(context: ApiContext, stream: str) -> int:
    with context.database.read() as connection:
        marks = [p.watermark_ns for p in positions.all_of(connection, stream) if p.watermark_ns is not None]
        if marks:
            return max(marks)
        some = anomalies.query(connection, stream=stream, limit=1)
    return some[0].end_ns if some else 10**18


def _points(table: pa.Table, channels: list[str], pixels: int) -> dict[str, Any]:
    """Return columns per channel: extremes of value and band, per pixel."""
    time = table.column("time").to_numpy().astype(np.int64)
    starts = _starts(time, pixels)
    parts: dict[str, dict[str, Any]] = {}
    for channel in channels:
        have = {part: _column(table, f"{part}:{channel}", len(time)) for part in _PARTS}
        parts[channel] = {
            "min": _reduced(np.fmin, have["value"], starts),
            "max": _reduced(np.fmax, have["value"], starts),
            "expected": _reduced(np.fmin, have["expected"], starts),
            "lower": _reduced(np.fmin, have["lower"], starts),
            "upper": _reduced(np.fmax, have["upper"], starts),
        }
    return {
        "time_ms": (time[starts] / MS).tolist(),
        "reduced": len(starts) < len(time),
        "points": parts,
        "models": _runs(table, "model", time),
        "forecasters": _runs(table, "guard", time, FORECASTERS),
        "missing": _missing(table, time),
    }


def _starts(time: NDArray[np.int64], pixels: int) -> NDArray[np.intp]:
    """Return the first row of each pixel."""
    if len(time) <= 2 * pixels:
        return np.arange(len(time))
    pixel = (time - time[0]) * pixels // max(1, int(time[-1] - time[0]))
    return np.flatnonzero(np.diff(pixel, prepend=-1))


def _column(table: pa.Table, name: str, rows: int) -> NDArray[np.float64]:
    if name not in table.column_names:
        return np.full(rows, np.nan)
    return table.column(name).to_numpy().astype(np.float64)


def _reduced(function: np.ufunc, values: NDArray[np.float64], starts: NDArray[np.intp]) -> list[float | None]:
    if not len(starts):
        return []
    return [
        None if not np.isfinite(value) else float(f"{value:.6g}")
        for value in function.reduceat(values, starts)
    ]


def _runs(
    table: pa.Table, name: str, time: NDArray[np.int64], words: tuple[str, ...] | None = None
) -> list[dict[str, Any]]:
    """Return the stretches of equal values of a column."""
    if name not in table.column_names or not len(time):
        return []
    values = table.column(name).to_pylist()
    found: list[dict[str, Any]] = []
    for at, value in zip(time.tolist(), values, strict=True):
        word = value if words is None or value is None else words[int(value)]
        if found and found[-1]["name"] == word:
            found[-1]["to_ms"] = at / MS
        else:
            found.append({"name": word, "from_ms": at / MS, "to_ms": at / MS})
    return found[:200]


def _missing(table: pa.Table, time: NDArray[np.int64]) -> list[dict[str, float]]:
    """Return the gaps: times between two points where others are missing."""
    if "missed" not in table.column_names:
        return []
    at = np.flatnonzero(table.column("missed").to_numpy() > 0)
    return [{"from_ms": time[i - 1] / MS, "to_ms": time[i] / MS} for i in at[:500].tolist() if i]


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
