"""All streams at once: their series, anomalies and faults, and totals."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Annotated, Any, Literal

import structlog
from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from pipeline.api.context import ApiContext, Context, Name, Page, require_stream
from pipeline.api.direct_answers import EncodedAnswer, api_router
from pipeline.core.errors import StorageError
from pipeline.core.types import Fault, Position
from storage.alerting.overview import alert_totals
from storage.history import parquet
from storage.history.coverage import Coverage, coverage_of, without_records
from storage.history.segments import DamagedSegment, Segment, SegmentStore, folder_of, valid
from storage.results import dead_letters, faults, lanes
from storage.results.lanes import Span
from storage.stream_state import positions

MS = 1_000_000
HOUR_MS = 3_600_000
RANGES_MS = {
    "1h": HOUR_MS,
    "6h": 6 * HOUR_MS,
    "24h": 24 * HOUR_MS,
    "7d": 168 * HOUR_MS,
    "30d": 720 * HOUR_MS,
    "365d": 8760 * HOUR_MS,
}
MAX_ANOMALIES_PER_STREAM = 5_000
MAX_SERIES_PER_STREAM = 20_000
#: Newest segments of a stream whose series are listed.
MAX_SEGMENTS_READ = 12
MAX_GAPS = 500
#: Greatest age of the lanes, which all pages share.
FLEET_SECONDS = 1.0
#: A lane shows gaps that are longer than one of so many parts.
LANE_PARTS = 400

log = structlog.get_logger(__name__)

router = api_router(tags=["fleet"])
Range = Literal["1h", "6h", "24h", "7d", "30d", "365d"]


class SeriesItem(BaseModel):
    """Name of one series."""

    stream: str
    series: str


class SeriesNames(BaseModel):
    """Names of the series of a stream, of at most 20,000."""

    names: list[str]
    count: int


class StreamGap(BaseModel):
    """Time between two records of a stream in which no series has one, in ms."""

    from_ms: int
    to_ms: int


class StreamGaps(BaseModel):
    """Times without a record, the last ones.

    Those inside segments that were not read yet are unknown.
    """

    gaps: list[StreamGap]
    unread_segments: int


class SeriesFilter(BaseModel):
    """Series whose name contains a text."""

    model_config = ConfigDict(extra="forbid")

    stream: Name | None = Field(None, description="only this stream")
    text: str = Field("", max_length=10_000, description="part of its name or of that of its stream")
    limit: int = Field(50, ge=1, le=500, description="largest number of rows")


@router.get("/fleet", response_model=dict[str, Any])
async def read_fleet(context: Context, range: Range = "24h") -> Any:
    """Return the lanes of all streams, each until its own newest record, and totals."""
    found: EncodedAnswer | None = context.kept_answer(f"fleet {range}", FLEET_SECONDS)
    if found is None:
        found = await run_in_threadpool(_shared_fleet, context, range)
    return found.response(context.accepted_encoding)


@router.get("/series")
def list_series(context: Context, query: Annotated[SeriesFilter, Query()]) -> Page[SeriesItem]:
    """Return series of the recorded history, by name."""
    wanted, found = query.text.casefold(), []
    for stream in [query.stream] if query.stream is not None else context.config.streams:
        require_stream(context.config, stream)
        for name in sorted(series_names(context, stream)):
            if wanted in name.casefold() or wanted in stream.casefold():
                found.append(SeriesItem(stream=stream, series=name))
                if len(found) >= query.limit:
                    return Page(items=found)
    return Page(items=found)


@router.get("/streams/{stream}/series-names")
def read_series_names(context: Context, stream: Annotated[str, Path(max_length=500)]) -> SeriesNames:
    """Return the names of the series of a stream, also without anomalies."""
    require_stream(context.config, stream)
    names = sorted(series_names(context, stream))
    return SeriesNames(names=names[:MAX_SERIES_PER_STREAM], count=len(names))


@router.get("/streams/{stream}/gaps")
def read_gaps(
    context: Context, stream: Annotated[str, Path(max_length=500)], range: Range = "24h"
) -> StreamGaps:
    """Return the times without any record of a stream, before its newest one.

    Some segments of the recorded history are read with each request, the newest first.
    """
    require_stream(context.config, stream)
    found: StreamGaps = context.shared_answer(
        f"gaps {range} {stream}", lambda: _gaps(context, stream, RANGES_MS[range]), 5.0
    )
    return found


def _gaps(context: ApiContext, stream: str, span_ms: int) -> StreamGaps:
    store = SegmentStore(context.config.history_path)
    try:
        listed = valid(store.list(folder_of(stream)))
        until_ns = max((one.newest_ns for one in listed), default=0)
        since_ns = until_ns - span_ms * MS
        recent = sorted((one for one in listed if one.newest_ns >= since_ns), key=lambda one: -one.newest_ns)
        cached, read_now, unread = context.segment_coverage, 0, 0

        def read(segment: Segment) -> Coverage | None:
            nonlocal read_now, unread
            if not cached.holds(segment.path):
                if read_now == MAX_SEGMENTS_READ:
                    unread += 1
                    return None
                read_now += 1
            try:
                coverage: Coverage = cached.get(segment.path, partial(coverage_of, store, segment))
            except FileNotFoundError:  # merged or pruned since it was listed
                return None
            return coverage

        found = without_records(recent, read, since_ns, span_ms * MS // LANE_PARTS)
    except OSError:
        return StreamGaps(gaps=[], unread_segments=0)  # the history is away, as the other pages say
    gaps = [StreamGap(from_ms=begin // MS, to_ms=end // MS) for begin, end in found[-MAX_GAPS:]]
    return StreamGaps(gaps=gaps, unread_segments=unread)


def warm_up(context: ApiContext) -> None:
    """Make the answers that the first page needs before somebody waits for them."""
    try:
        _shared_fleet(context, "24h")
    except StorageError as error:
        log.debug("the first page cannot be prepared", error=str(error))
        return
    for stream in context.config.streams:
        series_names(context, stream)


def _shared_fleet(context: ApiContext, range: Range) -> EncodedAnswer:
    def make() -> EncodedAnswer:
        return EncodedAnswer.of(_fleet(context, RANGES_MS[range]))

    found: EncodedAnswer = context.shared_answer(f"fleet {range}", make, FLEET_SECONDS)
    return found


def _fleet(context: ApiContext, span_ms: int) -> dict[str, Any]:
    now_ms = time.time_ns() // MS
    with context.database.read() as connection:
        by_stream = _by_stream(positions.all_of(connection, context.visible))
        commits = lanes.last_commits(connection, context.visible)
        left_out, streams = 0, []
        for name in context.config.streams:
            found = by_stream.get(name, [])
            latest = _latest_ns(connection, name, found)
            until_ms = now_ms if latest is None else latest // MS
            since_ns = (until_ms - span_ms) * MS
            some = lanes.spans(connection, name, since_ns, MAX_ANOMALIES_PER_STREAM + 1)
            left_out += len(some) > MAX_ANOMALIES_PER_STREAM
            happened = faults.query(connection, stream=name, since_ns=(now_ms - span_ms) * MS, limit=200)
            one = _stream(name, found, commits.get(name), until_ms if latest else None, now_ms, happened)
            labels = list(context.config.streams[name].format.chosen.label_names)
            streams.append(one | {"labels": labels, "lanes": _lanes(some[:MAX_ANOMALIES_PER_STREAM])})
        totals = _totals(context, connection, now_ms, list(by_stream.values()), commits)
    return {"now_ms": now_ms, "span_ms": span_ms, "streams": streams, "left_out": left_out, "tiles": totals}


def _lanes(found: list[Span]) -> dict[str, Any]:
    """Return columns: series with labels, and spans with places of series."""
    places: dict[str, int] = {}
    labels: list[dict[str, str]] = []
    for one in found:
        if one.series not in places:
            places[one.series] = len(places)
            labels.append(json.loads(one.labels))
    return {
        "series": list(places),
        "labels": labels,
        "of": [places[one.series] for one in found],
        "severity": [one.severity for one in found],
        "start_ms": [one.start_ns // MS for one in found],
        "end_ms": [one.end_ns // MS for one in found],
        "open": [int(one.open) for one in found],
    }


def series_names(context: ApiContext, stream: str) -> set[str]:
    """Return the series of the newest segments; each segment is read once."""
    store = SegmentStore(context.config.history_path)
    names: set[str] = set()
    try:
        newest = sorted(store.list(folder_of(stream)), key=lambda s: s.newest_ns, reverse=True)
        for segment in newest[:MAX_SEGMENTS_READ]:
            names |= context.segment_names.get(segment.path, partial(_names_of, store, segment))
    except (OSError, DamagedSegment):
        return names  # the history is away; series with anomalies are shown all the same
    return names


def _names_of(store: SegmentStore, segment: Segment) -> frozenset[str]:
    table = store.read(segment, columns=["series", "time"])
    return frozenset(parquet.counts(table)) if table.num_rows else frozenset()


def _latest_ns(connection: Connection, stream: str, found: list[Position]) -> int | None:
    """Return the event time that a stream has reached.

    After a backfill it is that of the last anomaly.
    """
    latest = max((p.watermark_ns for p in found if p.watermark_ns is not None), default=None)
    if latest is None:
        latest = lanes.newest_end_ns(connection, stream)
    return latest


def _by_stream(found: list[Position]) -> dict[str, list[Position]]:
    by_stream: dict[str, list[Position]] = {}
    for position in found:
        by_stream.setdefault(position.stream, []).append(position)
    return by_stream


def _stream(
    name: str,
    found: list[Position],
    updated_ns: int | None,
    latest_ms: int | None,
    now_ms: int,
    happened: list[Fault],
) -> dict[str, Any]:
    counts = [position.counts for position in found]
    return {
        "name": name,
        "latest_ms": latest_ms,
        "behind_ms": None if latest_ms is None else max(0, now_ms - latest_ms),
        "partitions": len(found),
        "records": sum(one.read() for one in counts),
        "buffered": sum(one.buffered for one in counts),
        "late": sum(one.late for one in counts),
        "dead_lettered": sum(one.dead_lettered for one in counts),
        "updated_ms": None if updated_ns is None else updated_ns // MS,
        "faults": [
            {
                "kind": fault.kind.value,
                "message": fault.message,
                "start_ms": fault.started_ns // MS,
                "end_ms": None if fault.ended_ns is None else fault.ended_ns // MS,
            }
            for fault in happened
        ],
    }


def _totals(
    context: ApiContext,
    connection: Connection,
    now_ms: int,
    by_stream: list[list[Position]],
    commits: dict[str, int],
) -> dict[str, Any]:
    read = sum(position.counts.read() for some in by_stream for position in some)
    given = ((name, one.alerts.budget) for name, one in context.config.streams.items())
    # Streams of one team share a budget.
    budgets = {one.team or f"stream {name}": one.per_day for name, one in given if one is not None}
    seen = context.visible
    counted = alert_totals(connection, (now_ms - 24 * HOUR_MS) * MS, seen)
    return {
        "records_per_second": context.records_meter.update(read, time.monotonic()),
        "open_anomalies": lanes.count_open(connection, seen),
        "open_alerts": counted.open_alerts,
        "messages_today": counted.messages,
        "pages_today": counted.pages,
        "budget": sum(budgets.values()) if budgets else None,
        "deliveries_waiting": counted.deliveries_waiting,
        "open_faults": len(faults.query(connection, stream=seen, open_only=True, limit=1000)),
        "dead_letters": sum(dead_letters.counts(connection, seen).values()),
        "daemon_ms": max(commits.values()) // MS if commits else None,
    }
