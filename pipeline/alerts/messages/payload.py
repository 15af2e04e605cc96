"""Payload of a message, from which every format is made.

Its schema is published as ``docs/reference/alert-payload.schema.json``. Times are RFC 3339 in UTC with
microseconds. The type contains the version of the schema; an incompatible change gets a new version.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pipeline.core.verdict_words import CAUSE_TEXTS, former_cause

Kind = Literal["opened", "updated", "repeated", "acknowledged", "resolved", "revised", "retracted", "test"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Anomalies that one payload lists; further ones are only counted, so that it stays below about 20 kB.
LISTED = 10


class Channel(msgspec.Struct, frozen=True):
    """One channel of the peak point, in the units of the input; null where there is no number."""

    name: str
    unit: str | None
    observed: float | None
    expected: float | None
    lower: float | None
    upper: float | None
    contribution: Annotated[
        float | None, Meta(description="share of the channel in the surprise; shares sum to 1")
    ]


class Origin(msgspec.Struct, frozen=True):
    """Position of the records of the anomaly."""

    topic: str
    partition: int
    first_offset: int
    peak_offset: int
    last_offset: int


class AnomalyView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One anomaly: an interval of one series."""

    id: str
    series: str
    labels: dict[str, str]
    state: Literal["open", "closed", "retracted"]
    severity: str
    direction: Annotated[str, Meta(description="up, down or mixed")]
    start: Annotated[
        str,
        Meta(description="time of the first reading of the deviation, which can be before the first alarm"),
    ]
    peak: str
    end: Annotated[str, Meta(description="time of the last reading of the deviation until now")]
    points: Annotated[int, Meta(description="flagged points")]
    score: Annotated[float, Meta(description="1 minus the tail probability of the peak")]
    surprise: Annotated[float, Meta(description="minus log10 of that probability")]
    channels: list[Channel]
    guard: Annotated[
        str,
        Meta(
            description="former word of forecaster: static, last, seasonal, river or lstm",
            extra_json_schema={"deprecated": True},
        ),
    ]
    evidence: Annotated[
        str,
        Meta(
            description=f"former word of cause: {', '.join(map(former_cause, CAUSE_TEXTS))}",
            extra_json_schema={"deprecated": True},
        ),
    ]
    model_version: str
    config_hash: str
    origin: Origin
    # A stored message of 0.1.0 lacks both.
    forecaster: Annotated[
        str,
        Meta(
            description="forecaster of the expected value: none, static, last_value, seasonal, gaussian "
            "or lstm"
        ),
    ] = ""
    cause: Annotated[str, Meta(description=f"cause of the anomaly: none, {', '.join(CAUSE_TEXTS)}")] = ""
    # Only under the decision usual_range.
    statement: Annotated[
        str,
        Meta(
            description="quantity, its value and its usual range as text; only with decision usual_range, "
            "where the numbers of the leading channel are those of this quantity"
        ),
    ] = ""
    size: Annotated[
        str, Meta(description="size and duration of the deviation as text; only with decision usual_range")
    ] = ""
    ratio: Annotated[
        float | None,
        Meta(
            description="distance from the middle of the usual range, where its end is 1; only with decision "
            "usual_range"
        ),
    ] = None
    relative: Annotated[
        bool,
        Meta(description="the numbers of the leading channel are shares of the value: 0.05 is 5 %"),
    ] = False
    severity_reason: Annotated[
        str,
        Meta(
            description="why it has its severity, and when a higher one follows; only with decision "
            "usual_range and of events"
        ),
    ] = ""
    first_step: Annotated[str, Meta(description="one thing to look at first")] = ""
    readings: Annotated[int | None, Meta(description="readings of the deviation, from start to end")] = None
    start_uncertainty_s: Annotated[
        float | None,
        Meta(
            description="seconds by which the deviation can have begun before start: the window of the mean "
            "or of the hours that the statement is about"
        ),
    ] = None
    first_alarm: Annotated[
        str, Meta(description="time of the first reading that raised the alarm, where that is after start")
    ] = ""
    end_reason: Annotated[
        str,
        Meta(
            description="only where the end says nothing about the values: continued (its file ended, the "
            "series goes on in a later one), silent (no later file has the series), file_removed"
        ),
    ] = ""
    relation: Annotated[
        str,
        Meta(
            description="where a relation between channels is broken: the channel that says most about the "
            "leading one, its value, and what is usual beside it"
        ),
    ] = ""
    basis: Annotated[
        str,
        Meta(
            description="rows from which the usual range was learned: all_hours, or those of one time of "
            "day: time_of_day, working_days, weekends, similar_days; only with decision usual_range"
        ),
    ] = ""
    stayed: Annotated[
        bool | None,
        Meta(
            description="at the end of a change: whether the value stayed where it was moved to; null where "
            "that is not known or no question"
        ),
    ] = None


class FaultView(msgspec.Struct, frozen=True):
    """A fault of the pipeline, not of the data."""

    kind: str
    message: str
    started: str
    ended: str | None
    partition: str | None


class Hint(msgspec.Struct, frozen=True):
    """A possible root cause: a series that started before the others, now and in past alerts."""

    series: str
    started: str
    together: Annotated[int, Meta(description="past alerts in which it was anomalous together with others")]
    first: Annotated[int, Meta(description="those of them in which it was the first")]


class BudgetView(msgspec.Struct, frozen=True):
    """Budget of pages at the time of the message, and the p-value of the alert."""

    pages_per_day: float
    p_value: Annotated[
        float,
        Meta(description="probability that an undisturbed candidate of the stream is at least as surprising"),
    ]
    threshold: Annotated[float, Meta(description="alerts with p-values up to this one page")]
    used: Annotated[float, Meta(description="pages of the last 24 hours")]


class ReviewView(msgspec.Struct, frozen=True):
    """Label with which a person retracted an anomaly of the alert, or restored it."""

    label: str
    by: str
    comment: str


class Commands(msgspec.Struct, frozen=True):
    """Commands for the next steps."""

    explain: str | None
    acknowledge: str
    label: str | None
    silence: str


class Alert(msgspec.Struct, frozen=True):
    """One alert, of one series or of several that are grouped."""

    alert_id: Annotated[str, Meta(description="the same in all messages of the alert")]
    dedup_key: Annotated[
        str,
        Meta(description="the same for every alert_id of this series or group: forewatch/stream/rule/group"),
    ]
    sequence: Annotated[
        int, Meta(description="number of the message of this series or group; a lower one is older")
    ]
    stream: str
    class_: Literal["data", "fault"] = msgspec.field(name="class")
    rule: str
    urgency: Literal["page", "notice"]
    severity: str
    severities: Annotated[
        list[str], Meta(description="every severity that this alert has had in messages, this one included")
    ]
    status: Literal["open", "acknowledged", "resolved", "retracted"]
    title: str
    text: str
    labels: Annotated[dict[str, str], Meta(description="labels that all its series have in common")]
    opened: str
    resolved: str | None
    expires: Annotated[str, Meta(description="without a newer message by then, consider the alert ended")]
    flapping: bool
    count: Annotated[int, Meta(description="anomalies in this alert, listed or not")]
    open_count: Annotated[int, Meta(description="anomalies that have not ended")]
    anomalies: Annotated[list[AnomalyView], Meta(description=f"the {LISTED} most surprising ones")]
    fault: FaultView | None
    root_cause: list[Hint]
    elsewhere: Annotated[
        list[str], Meta(description="other series with an anomaly at the same time, not part of this alert")
    ]
    budget: BudgetView | None
    commands: Commands
    link: str | None
    picture: Annotated[str | None, Meta(description="address of a PNG chart of the series with its band")]
    review: Annotated[
        ReviewView | msgspec.UnsetType,
        Meta(description="who labelled an anomaly as false and why; only in messages about that"),
    ] = msgspec.UNSET
    timezone: Annotated[
        str, Meta(description="IANA time zone in which the text states times beside UTC; empty: UTC only")
    ] = ""


class Payload(msgspec.Struct, frozen=True):
    """Body of a message: type, timestamp and data as in Standard Webhooks."""

    type: Annotated[str, Meta(pattern=r"^alert\.[a-z]+\.v1$")]
    timestamp: Annotated[str, Meta(description="time of the event, not of the delivery")]
    data: Alert

    @property
    def kind(self) -> str:
        return self.type.split(".")[1]


def encode(payload: Payload) -> bytes:
    """Return the JSON of a payload."""
    return msgspec.json.encode(payload)


def decode(body: bytes | str) -> Payload:
    """Return the payload of its JSON. Raises ValueError if it is not one."""
    return msgspec.json.decode(body, type=Payload)


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the payload."""
    (top,), definitions = msgspec.json.schema_components([Payload], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "forewatch alert, version 1",
        **top,
        "$defs": definitions,
    }


def schema_text() -> str:
    """Return the text of ``docs/reference/alert-payload.schema.json``."""
    return json.dumps(schema(), indent=2) + "\n"


def stamp(time_ns: int) -> str:
    """Return ns since the epoch as RFC 3339 in UTC."""
    return (_EPOCH + timedelta(microseconds=time_ns // 1000)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(text: str) -> datetime:
    """Return the aware datetime of a text of ``stamp``."""
    return datetime.fromisoformat(text)


def number(value: float) -> float | None:
    """Return a finite value, or None, which JSON has."""
    return value if math.isfinite(value) else None


def leading_name(alert: Alert) -> str:
    """Return the leading channel of the most surprising anomaly, or the kind of the fault."""
    if alert.fault is not None:
        return alert.fault.kind
    if not alert.anomalies:
        return alert.stream
    return max(alert.anomalies[0].channels, key=lambda c: c.contribution or 0.0).name
