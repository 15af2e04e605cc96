"""Anomalies: list, one with its revisions, explanation, label."""

from __future__ import annotations

from dataclasses import asdict
from time import time_ns
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from pipeline.access import audited_changes
from pipeline.api.context import ApiContext, Context, ListFilter, Page, SeriesName
from pipeline.api.direct_answers import api_router, shared
from pipeline.api.entity_tags import IfMatch, require_match, tag_of
from pipeline.config.schema import Config
from pipeline.core.deviation_severity import severity_text
from pipeline.core.end_text import told_anomaly
from pipeline.core.errors import InputError
from pipeline.core.farthest_reading import begin_texts
from pipeline.core.first_steps import first_step
from pipeline.core.iso_times import show_time
from pipeline.core.types import Anomaly, AnomalyState, EndReason, EventFinding, Severity
from pipeline.core.usual_range_text import relation_text
from pipeline.core.verdict_words import CAUSE_TEXTS, CAUSES_OF_VALUES
from pipeline.services.anomaly_text import finite, short_text
from pipeline.services.explain import explain
from pipeline.services.reviews import label_anomaly
from storage.results import anomalies, labels

#: More would let one request match for minutes.
MAX_WILDCARDS = 4

router = api_router(prefix="/anomalies", tags=["anomalies"])


class ChannelValue(BaseModel):
    """One channel at the peak, in the units of the input.

    After the end the numbers of the leading channel are those of the reading that was farthest outside.
    """

    channel: str
    unit: str | None
    observed: float | None
    expected: float | None
    lower: float | None
    upper: float | None
    contribution: float | None


class LikelyEvent(BaseModel):
    """An event that was expected."""

    code: str
    probability: float


class EventView(BaseModel):
    """The most surprising event of an anomaly of a stream of events."""

    code: str
    probability: float | None
    before: list[str] = Field(description="events before it, the last one at the end")
    likely: list[LikelyEvent] = Field(description="the most probable events in its place")


class RelationView(BaseModel):
    """Relation between two channels that was broken, at the peak."""

    channel: str = Field(description="channel that is blamed")
    value: float | None
    partner: str = Field(description="other channel that says most about it")
    partner_value: float | None
    implied: float | None = Field(description="what the other channels imply for the blamed channel")
    text: str = Field(
        examples=["beside pressure of 3.4 bar, temperature is usually near 67.3 °C, not 71.2 °C"]
    )


class AnomalyItem(BaseModel):
    """One anomaly in its present revision."""

    id: UUID
    stream: str
    series: str
    labels: dict[str, str]
    state: AnomalyState
    end_reason: EndReason | None = Field(
        description="reason why it is closed: recovered, or the end of its file; null while it is open"
    )
    severity: Severity
    direction: str
    start: str | None = Field(
        description="first reading of the deviation, which can be before its first alarm"
    )
    peak: str | None
    end: str | None = Field(description="last reading of the deviation until now")
    points: int = Field(description="flagged points")
    readings: int = Field(description="readings of the deviation, from start to end")
    score: float | None
    surprise: float | None
    ratio: float | None = Field(description="deviation over the half usual range; null if there is none")
    relative: bool = Field(description="the quantity is a share of the value: 0.05 is 5 %")
    of_value: bool = Field(description="`lower` and `upper` are a range of the value, not of a change")
    cause: str
    cause_text: str = Field(examples=["novelty: no value near this one was seen before"])
    forecaster: str
    model_version: str
    revision: int
    revised: str | None = Field(
        description="when late points made or changed it last; null if they never did"
    )
    text: str = Field(
        description="the sentence of messages; after the end how far it went and where the value was then",
        examples=[
            "temperature is 93.1 °C, usual at this time of day 60 to 75 °C",
            "temperature was as high as 95.4 °C at 17:25 CET, usual at that time of day 60 to 75 °C; now "
            "68.4 °C, usual at this hour",
        ],
    )
    severity_reason: str = Field(
        description="why it has its severity; empty for numbers under the decision `surprise`",
        examples=["major, because it is far outside its usual range; critical after 30 readings (30 min)"],
    )
    first_step: str = Field(description="one thing to look at first")
    channels: list[ChannelValue]
    relation: RelationView | None = Field(
        description="the other channel; null where the cause is no relation"
    )
    event: EventView | None = Field(None, description="null in a stream of numbers")


class Review(BaseModel):
    """Label that a person gave an anomaly."""

    label: str
    author: str
    comment: str
    at: str | None


class AnomalyDetail(AnomalyItem):
    """One anomaly with its label."""

    review: Review | None


class ExplanationView(BaseModel):
    """Verdict that is recomputed from the recorded history."""

    text: str = Field(description="the sentence of the anomaly, the result and its reasons")
    verdict: str = Field(examples=["holds", "changed", "unknown"])
    sentence: str
    reasons: list[str]
    points: int = Field(description="recorded points that were used")
    surprise: float | None
    flagged: bool | None


class LabelRequest(BaseModel):
    """A label; a false anomaly is used for training again, and its alert is retracted."""

    label: Literal["true", "false", "maintenance"]
    comment: str = Field("", max_length=2000)
    author: str = Field("api", min_length=1, max_length=200)


LabelText = Annotated[str, Field(max_length=1000, pattern=r"^[^=]+=", examples=["site=berlin"])]


class AnomalyFilter(ListFilter):
    """Anomalies that overlap a time range."""

    series: SeriesName | None = Field(None, description="name; * is any text, ? is one character")
    state: AnomalyState | None = None
    severity: Severity | None = Field(None, description="the lowest one")
    label: list[LabelText] = Field(
        default_factory=list, max_length=10, description="label of the series, NAME=VALUE; all that are given"
    )


@router.get("")
@shared
def list_anomalies(context: Context, query: Annotated[AnomalyFilter, Query()]) -> Page[AnomalyItem]:
    """Return anomalies that overlap the range, the newest first."""
    if (query.series or "").count("*") > MAX_WILDCARDS:
        raise InputError(f"series: write at most {MAX_WILDCARDS} times *")
    with context.database.read() as connection:
        found = anomalies.query(
            connection,
            series=query.series,
            state=query.state,
            severity=query.severity,
            labels=_labels_of(query.label),
            **query.bounds(context, int, UUID)._asdict(),
        )
    return query.page(
        found, lambda one: anomaly_item(context.config, one), lambda one: (one.start_ns, one.id)
    )


def _labels_of(given: list[str]) -> dict[str, str]:
    """Return labels that a query has as NAME=VALUE.

    Raises:
        InputError: A label is given twice.
    """
    pairs = [one.partition("=")[::2] for one in given]
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InputError("label: a series has one value of each label; give each name once")
    return found


@router.get("/{anomaly_id}")
def read_anomaly(context: Context, anomaly_id: UUID, response: Response) -> AnomalyDetail:
    """Return one anomaly."""
    with context.database.read() as connection:
        shown = _detail(context, connection, anomaly_id)
    response.headers["etag"] = tag_of(shown)
    return shown


@router.get("/{anomaly_id}/explanation")
def read_explanation(context: Context, anomaly_id: UUID) -> ExplanationView:
    """Recompute the verdict from the recorded history and say whether it still holds."""
    with context.database.read() as connection:
        anomaly = visible_anomaly(context, connection, str(anomaly_id))
    explanation = explain(context.config, context.database, anomaly)
    surprise = None if explanation.surprise is None else finite(explanation.surprise)
    return ExplanationView(**asdict(explanation) | {"surprise": surprise, "text": str(explanation)})


@router.put("/{anomaly_id}/label")
def put_label(
    context: Context, anomaly_id: UUID, request: LabelRequest, response: Response, if_match: IfMatch = None
) -> AnomalyDetail:
    """Label an anomaly; the last label counts."""
    with context.database.begin() as connection:
        anomaly = visible_anomaly(context, connection, str(anomaly_id))
        require_match(if_match, _detail(context, connection, anomaly_id))
        before = labels.reviews(connection, [anomaly.id]).get(anomaly.id)
        review = labels.Review(request.label, context.author(request.author), request.comment, time_ns())
        label_anomaly(connection, context.config, anomaly, review)
        context.record(connection, audited_changes.labelled(anomaly, before, review))
    return read_anomaly(context, anomaly_id, response)


def _detail(context: ApiContext, connection: Connection, anomaly_id: UUID) -> AnomalyDetail:
    anomaly = visible_anomaly(context, connection, str(anomaly_id))
    review = labels.reviews(connection, [anomaly.id]).get(anomaly.id)
    return anomaly_detail(context.config, anomaly, review)


def visible_anomaly(context: ApiContext, connection: Connection, id_: str) -> Anomaly:
    """Return an anomaly by the beginning of its id.

    Raises:
        InputError: There is none that the principal sees.
    """
    anomaly = anomalies.get(connection, id_)
    context.require_visible(anomaly.stream, f"there is no anomaly {id_}")
    return anomaly


def anomaly_item(config: Config, anomaly: Anomaly) -> AnomalyItem:
    """Return an anomaly as the API shows it."""
    return AnomalyItem(**_values(config, anomaly))


def anomaly_detail(
    config: Config, anomaly: Anomaly, review: labels.Review | None, zone: str | None = None
) -> AnomalyDetail:
    """Return an anomaly with its label.

    Args:
        config: The configuration, which has the units.
        anomaly: The anomaly.
        review: Its label.
        zone: Time zone of times in its texts; None for that of its stream.
    """
    shown = review and Review(
        label=review.label, author=review.author, comment=review.comment, at=show_time(review.created_ns)
    )
    return AnomalyDetail(**_values(config, anomaly, zone), review=shown)


def _values(config: Config, anomaly: Anomaly, zone: str | None = None) -> dict[str, Any]:
    same = [
        *("id", "stream", "series", "labels", "state", "severity", "direction", "points", "readings"),
        *("cause", "forecaster", "model_version", "revision", "relative"),
    ]
    numbers = ("observed", "expected", "lower", "upper", "contribution")
    stream = config.streams.get(anomaly.stream)
    units = {} if stream is None else stream.alerts.units
    if zone is None:
        zone = "" if stream is None else stream.local_timezone
    text, relation = short_text(anomaly, units, zone), _relation(anomaly, units)  # which is of the peak
    anomaly = told_anomaly(anomaly)
    shown: dict[str, Any] = {name: getattr(anomaly, name) for name in same}
    return shown | {
        "end_reason": anomaly.end_reason or None,
        "start": show_time(anomaly.began_ns),
        "peak": show_time(anomaly.peak_ns),
        "end": show_time(anomaly.lasted_until_ns),
        "revised": show_time(anomaly.revised_ns) if anomaly.revised_ns else None,
        "score": finite(anomaly.score),
        "surprise": finite(anomaly.surprise),
        "ratio": finite(anomaly.ratio) or None,
        "of_value": anomaly.cause in CAUSES_OF_VALUES and not anomaly.relative,
        "cause_text": CAUSE_TEXTS.get(anomaly.cause, "no single cause"),
        "text": text,
        "severity_reason": severity_text(anomaly, ended=anomaly.state is AnomalyState.CLOSED, zone=zone),
        "first_step": first_step(anomaly, *begin_texts(anomaly, zone)),
        "channels": [
            {
                "channel": name,
                "unit": units.get(name),
                **{key: finite(getattr(anomaly, key)[at]) for key in numbers},
            }
            for at, name in enumerate(anomaly.channels)
        ],
        "relation": relation,
        "event": None if anomaly.event is None else _event(anomaly.event),
    }


def _relation(anomaly: Anomaly, units: dict[str, str]) -> RelationView | None:
    context = anomaly.context
    if context is None or context.partner is None:
        return None
    return RelationView(
        channel=anomaly.channels[anomaly.leading_channel],
        value=context.value,
        partner=context.partner,
        partner_value=context.partner_value,
        implied=context.implied,
        text=relation_text(anomaly, units),
    )


def _event(event: EventFinding) -> EventView:
    pairs = zip(event.likely, event.likely_probability, strict=True)
    return EventView(
        code=event.code,
        probability=finite(event.probability),
        before=event.recent,
        likely=[LikelyEvent(code=code, probability=finite(p) or 0.0) for code, p in pairs],
    )
