"""Anomalies: list, one with its revisions, explanation, label."""

from __future__ import annotations

from dataclasses import asdict
from time import time_ns
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from pipeline.api.context import Context, SeriesName, TimeFilter, decode_cursor, encode_cursor, to_ns
from pipeline.core.errors import InputError
from pipeline.core.iso_times import show_time
from pipeline.core.types import Anomaly, AnomalyState, Severity
from pipeline.dashboard.words import finite, short_text
from pipeline.services.explain import explain
from pipeline.services.reviews import label_anomaly
from storage.results import anomalies, labels

#: More would let one request match for minutes.
MAX_WILDCARDS = 4

router = APIRouter(prefix="/anomalies", tags=["anomalies"])


class ChannelValue(BaseModel):
    """One channel at the peak, in the units of the input."""

    channel: str
    observed: float | None
    expected: float | None
    lower: float | None
    upper: float | None
    contribution: float | None


class AnomalyItem(BaseModel):
    """One anomaly in its present revision."""

    id: UUID
    stream: str
    series: str
    labels: dict[str, str]
    state: AnomalyState
    severity: Severity
    direction: str
    start: str | None
    peak: str | None
    end: str | None
    points: int
    score: float | None
    surprise: float | None
    cause: str
    forecaster: str
    model_version: str
    revision: int
    text: str = Field(examples=["temperature is 93.1 °C, usual at this time 60 to 75 °C"])
    channels: list[ChannelValue]


class AnomalyPage(BaseModel):
    """A page of anomalies; ``next_cursor`` is null on the last one."""

    items: list[AnomalyItem]
    next_cursor: str | None


class Review(BaseModel):
    """Label that a person gave an anomaly."""

    label: str
    author: str
    comment: str
    at: str | None


class AnomalyDetail(AnomalyItem):
    """One anomaly with its label."""

    review: Review | None


class LabelRequest(BaseModel):
    """A label; a false anomaly is used for training again, and its alert is retracted."""

    label: Literal["true", "false", "maintenance"]
    comment: str = Field("", max_length=2000)
    author: str = Field("api", min_length=1, max_length=200)


class AnomalyFilter(TimeFilter):
    """Anomalies that overlap a time range."""

    series: SeriesName | None = Field(None, description="name; * is any text, ? is one character")
    state: AnomalyState | None = None
    severity: Severity | None = Field(None, description="the lowest one")
    cursor: str | None = Field(None, max_length=500, description="next_cursor of the page before")


@router.get("")
def list_anomalies(context: Context, query: Annotated[AnomalyFilter, Query()]) -> AnomalyPage:
    """Return anomalies that overlap the range, the newest first."""
    if (query.series or "").count("*") > MAX_WILDCARDS:
        raise InputError(f"series: write at most {MAX_WILDCARDS} times *")
    with context.database.read() as connection:
        found = anomalies.query(
            connection,
            stream=query.stream,
            series=query.series,
            state=query.state,
            severity=query.severity,
            since_ns=to_ns(query.since),
            until_ns=to_ns(query.until),
            after=None if query.cursor is None else _last_of(query.cursor),
            limit=query.limit + 1,
        )
    page = found[: query.limit]
    more = encode_cursor(page[-1].start_ns, page[-1].id) if len(found) > query.limit else None
    return AnomalyPage(items=[AnomalyItem(**anomaly_values(one)) for one in page], next_cursor=more)


@router.get("/{anomaly_id}")
def read_anomaly(context: Context, anomaly_id: UUID) -> AnomalyDetail:
    """Return one anomaly."""
    with context.database.read() as connection:
        anomaly = anomalies.get(connection, str(anomaly_id))
        review = labels.reviews(connection, [anomaly.id]).get(anomaly.id)
    said = review and Review(
        label=review.label, author=review.author, comment=review.comment, at=show_time(review.created_ns)
    )
    return AnomalyDetail(**anomaly_values(anomaly), review=said)


@router.get("/{anomaly_id}/explanation")
def read_explanation(context: Context, anomaly_id: UUID) -> dict[str, Any]:
    """Recompute the verdict from the recorded history and say whether it still holds."""
    with context.database.read() as connection:
        anomaly = anomalies.get(connection, str(anomaly_id))
    explanation = explain(context.config, context.database, anomaly)
    surprise = None if explanation.surprise is None else finite(explanation.surprise)
    return asdict(explanation) | {"surprise": surprise}


@router.put("/{anomaly_id}/label")
def put_label(context: Context, anomaly_id: UUID, request: LabelRequest) -> AnomalyDetail:
    """Label an anomaly; the last label counts."""
    with context.database.begin() as connection:
        anomaly = anomalies.get(connection, str(anomaly_id))
        review = labels.Review(request.label, request.author, request.comment, time_ns())
        label_anomaly(connection, context.config, anomaly, review)
    return read_anomaly(context, anomaly_id)


def anomaly_values(anomaly: Anomaly) -> dict[str, Any]:
    """Return the fields of ``AnomalyItem``."""
    same = [
        *("id", "stream", "series", "labels", "state", "severity", "direction", "points"),
        *("cause", "forecaster", "model_version", "revision"),
    ]
    numbers = ("observed", "expected", "lower", "upper", "contribution")
    return {name: getattr(anomaly, name) for name in same} | {
        "start": show_time(anomaly.start_ns),
        "peak": show_time(anomaly.peak_ns),
        "end": show_time(anomaly.end_ns),
        "score": finite(anomaly.score),
        "surprise": finite(anomaly.surprise),
        "text": short_text(anomaly),
        "channels": [
            {"channel": name} | {key: finite(getattr(anomaly, key)[at]) for key in numbers}
            for at, name in enumerate(anomaly.channels)
        ],
    }


def _last_of(cursor: str) -> tuple[int, UUID]:
    """Return (start, id) of the last anomaly of the page before.

    Raises:
        InputError: The text is not a cursor.
    """
    start, id_ = decode_cursor(cursor, 2)
    try:
        start_ns, last = int(start), UUID(id_)
    except ValueError:
        raise InputError("cursor: take the value of `next_cursor` of the page before, unchanged") from None
    if abs(start_ns) >= 1 << 63:
        raise InputError("cursor: take the value of `next_cursor` of the page before, unchanged")
    return start_ns, last
