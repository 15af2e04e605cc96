"""Statement of an anomaly, which every message, page and command prints."""

from __future__ import annotations

from pipeline.core.event_text import event_statement, shorten
from pipeline.core.types import Anomaly
from pipeline.core.usual_range_text import usual_range_text


def anomaly_statement(
    anomaly: Anomaly, unit: str | None = None, *, ended: bool = False, zone: str | None = None
) -> str | None:
    """Return the sentence of an anomaly.

    It is None for numbers under the decision "surprise".

    Args:
        anomaly: the anomaly.
        unit: unit of the leading channel.
        ended: write in the past tense.
        zone: time zone of the time of the peak, "" for UTC, None for no time.
    """
    if anomaly.event is None:
        return usual_range_text(anomaly, unit, ended=ended, zone=zone)
    event = anomaly.event
    likely = list(zip(event.likely, event.likely_probability, strict=True))
    return event_statement(anomaly.cause, event.code, event.probability, event.recent, likely)


def events_before(anomaly: Anomaly) -> str:
    """Return the events before that of an anomaly, the last one at the end."""
    recent = [] if anomaly.event is None else anomaly.event.recent
    return ", ".join(map(shorten, recent)) or "none"
