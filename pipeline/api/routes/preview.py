"""Preview of the messages of a stream under other rules or another sensitivity."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import BaseModel, Field

from pipeline.api.context import Context, require_stream
from pipeline.api.direct_answers import api_router
from pipeline.config.schema import ALARM_RATES
from pipeline.core.iso_times import show_time
from pipeline.core.types import Severity
from pipeline.monitoring.alert_preview import AlertPreview, preview_alerts, rules_text, values_of

router = api_router(tags=["alerts"])

StreamPath = Annotated[str, Path(max_length=500)]
MAX_EXAMPLES = 20


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
    since: str | None
    until: str | None
    examples: list[PreviewMessage] = Field(description="the newest messages")


class PreviewRequest(BaseModel):
    """Settings of a preview; what is left out is as in the config."""

    rules: str | None = Field(None, max_length=20_000, description="block `alerts` of the stream, as YAML")
    sensitivity: Literal["low", "normal", "high"] | None = Field(
        None, description="score the newest recorded points again"
    )


class Rules(BaseModel):
    """Alert rules of a stream."""

    rules: str = Field(description="block `alerts` as YAML, without keys that have their default")
    sensitivity: str | None = Field(description="configured sensitivity; null: an alarm rate of its own")


@router.get("/streams/{stream}/rules")
def read_rules(context: Context, stream: StreamPath) -> Rules:
    """Return the alert rules of a stream."""
    require_stream(context.config, stream)
    configured = context.config.streams[stream]
    rates = {rate: word for word, rate in ALARM_RATES.items()}
    sensitivity = rates.get(configured.target_alarm_rate)
    return Rules(rules=rules_text(context.config, stream), sensitivity=sensitivity)


@router.get("/streams/{stream}/preview")
def preview(
    context: Context, stream: StreamPath, notice: Annotated[Severity | None, Query()] = None
) -> Preview:
    """Route the anomalies of the last week, with another notice level if one is given."""
    require_stream(context.config, stream)
    configured = context.config.streams[stream]
    if notice is not None:
        page = max(Severity(configured.alerts.severity.page), notice, key=list(Severity).index)
        severity = configured.alerts.severity.model_copy(update={"notice": notice.value, "page": page.value})
        rules = configured.alerts.model_copy(update={"severity": severity})
        streams = {stream: configured.model_copy(update={"alerts": rules})}
        config = context.config.model_copy(update={"streams": streams})
    else:
        config = context.config
    return _shown(preview_alerts(config, context.database, stream), stream)


@router.post("/streams/{stream}/preview")
def preview_changed(context: Context, stream: StreamPath, request: PreviewRequest) -> Preview:
    """Route the anomalies of the last week with changed rules or another sensitivity."""
    require_stream(context.config, stream)
    found = preview_alerts(
        context.config, context.database, stream, rules=request.rules, sensitivity=request.sensitivity
    )
    return _shown(found, stream)


def _shown(found: AlertPreview, stream: str) -> Preview:
    return Preview(
        **values_of(found, stream),
        since=show_time(found.since_ns),
        until=show_time(found.until_ns),
        examples=[
            PreviewMessage(endpoint=endpoint, at=show_time(at_ns), title=payload.data.title)
            for endpoint, at_ns, payload in found.report.sent[-MAX_EXAMPLES:]
        ],
    )
