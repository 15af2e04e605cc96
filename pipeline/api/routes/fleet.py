"""All streams at once: their series, anomalies and faults, and totals."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, func, select
from starlette.responses import JSONResponse

from pipeline.api.context import ApiContext, Context, Name, Page, require_stream
from pipeline.core.types import Anomaly, AnomalyState, Fault, Position, Severity
from pipeline.services.anomaly_text import short_text
from storage.alerting import alerts
from storage.alerting.states import AlertState, DeliveryState
from storage.history import parquet
from storage.history.segments import DamagedSegment, Segment, SegmentStore, folder_of
from storage.results import anomalies, dead_letters, faults
from storage.sql.statements import of_streams
from storage.stream_state import positions
from storage.tables.alerting import AlertRow, DeliveryRow, NotificationRow
from storage.tables.stream import AnomalyRow, PositionRow

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
_LEVELS = {level: number for number, level in enumerate(Severity)}

router = APIRouter(tags=["fleet"])
Range = Literal["1h", "6h", "24h", "7d", "30d", "365d"]


class SeriesItem(BaseModel):
    """Name of one series."""

    stream: str
    series: str


class SeriesFilter(BaseModel):
    """Series whose name contains a text."""

    model_config = ConfigDict(extra="forbid")

    stream: Name | None = Field(None, description="only this stream")
    text: str = Field("", max_length=10_000, description="part of its name or of that of its stream")
    limit: int = Field(50, ge=1, le=500, description="largest number of rows")


@router.get("/fleet", response_model=dict[str, Any])
def read_fleet(context: Context, range: Range = "24h") -> Any:
    """Return the lanes of all streams, each until its own newest record, and totals."""
    return JSONResponse(context.answers.get(f"fleet {range}", lambda: _fleet(context, RANGES_MS[range]), 1.0))


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


def _fleet(context: ApiContext, span_ms: int) -> dict[str, Any]:
    now_ms = time.time_ns() // MS
    with context.database.read() as connection:
        by_stream = _by_stream(positions.all_of(connection, context.visible))
        updated = _updated(connection)
        shown, left_out, streams = [], 0, []
        for name in context.config.streams:
            found = by_stream.get(name, [])
            latest = _latest_ns(connection, name, found)
            until_ms = now_ms if latest is None else latest // MS
            some = anomalies.query(
                connection,
                stream=name,
                since_ns=(until_ms - span_ms) * MS,
                limit=MAX_ANOMALIES_PER_STREAM + 1,
            )
            left_out += len(some) > MAX_ANOMALIES_PER_STREAM
            shown += [_anomaly(one) for one in some[:MAX_ANOMALIES_PER_STREAM]]
            happened = faults.query(connection, stream=name, since_ns=(now_ms - span_ms) * MS, limit=200)
            streams.append(
                _stream(name, found, updated.get(name), until_ms if latest else None, now_ms, happened)
            )
        totals = _totals(context, connection, now_ms, list(by_stream.values()))
    for stream in streams:
        names = sorted(series_names(context, stream["name"]))
        stream |= {
            "series": names[:MAX_SERIES_PER_STREAM],
            "unlisted": max(0, len(names) - MAX_SERIES_PER_STREAM),
        }
    return {
        "now_ms": now_ms,
        "span_ms": span_ms,
        "streams": streams,
        "anomalies": shown,
        "left_out": left_out,
        "tiles": totals,
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
        latest = connection.scalar(select(func.max(AnomalyRow.end_ns)).where(AnomalyRow.stream == stream))
    return latest


def _by_stream(found: list[Position]) -> dict[str, list[Position]]:
    by_stream: dict[str, list[Position]] = {}
    for position in found:
        by_stream.setdefault(position.stream, []).append(position)
    return by_stream


def _updated(connection: Connection) -> dict[str, int]:
    """Return the time of the newest commit of each stream, in ns."""
    rows = connection.execute(
        select(PositionRow.stream, func.max(PositionRow.updated_ns)).group_by(PositionRow.stream)
    )
    return {stream: int(updated) for stream, updated in rows}


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


def _anomaly(anomaly: Anomaly) -> dict[str, Any]:
    return {
        "id": str(anomaly.id),
        "stream": anomaly.stream,
        "series": anomaly.series,
        "labels": anomaly.labels,
        "severity": _LEVELS[anomaly.severity],
        "start_ms": anomaly.start_ns // MS,
        "end_ms": anomaly.end_ns // MS,
        "open": anomaly.state is AnomalyState.OPEN,
        "text": short_text(anomaly),
    }


def _totals(
    context: ApiContext, connection: Connection, now_ms: int, by_stream: list[list[Position]]
) -> dict[str, Any]:
    day_ns = (now_ms - 24 * HOUR_MS) * MS
    read = sum(position.counts.read() for some in by_stream for position in some)
    budgets = [
        stream.alerts.budget.per_day
        for stream in context.config.streams.values()
        if stream.alerts.budget is not None
    ]
    seen = context.visible
    counted = connection.scalar(
        select(func.count())
        .select_from(NotificationRow)
        .where(NotificationRow.created_ns >= day_ns, of_streams(NotificationRow.stream, seen))
    )
    waits = select(func.count()).select_from(DeliveryRow).where(DeliveryRow.state == DeliveryState.PENDING)
    if seen is not None:
        of_seen = select(AlertRow.alert_id).where(of_streams(AlertRow.stream, seen))
        waits = waits.where(DeliveryRow.alert_id.in_(of_seen))
    waiting = connection.scalar(waits)
    pages = sum(
        alert.urgency == "page" and alert.sent_ns is not None
        for alert in alerts.query(connection, stream=seen, since_ns=day_ns, limit=1000)
    )
    updated = connection.scalar(
        select(func.max(PositionRow.updated_ns)).where(of_streams(PositionRow.stream, seen))
    )
    return {
        "records_per_second": context.records_meter.update(read, time.monotonic()),
        "open_anomalies": len(
            anomalies.query(connection, stream=seen, state=AnomalyState.OPEN, limit=10_000)
        ),
        "open_alerts": len(alerts.query(connection, stream=seen, states=[AlertState.OPEN], limit=1000)),
        "messages_today": int(counted or 0),
        "pages_today": pages,
        "budget": sum(budgets) if budgets else None,
        "deliveries_waiting": int(waiting or 0),
        "open_faults": len(faults.query(connection, stream=seen, open_only=True)),
        "dead_letters": sum(dead_letters.counts(connection, seen).values()),
        "daemon_ms": None if updated is None else int(updated) // MS,
    }
