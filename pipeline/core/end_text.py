"""Sentence of the end of an anomaly: how far it went, and where the value is then."""

from __future__ import annotations

from pipeline.core.anomaly_text import anomaly_statement
from pipeline.core.data_units import data_unit
from pipeline.core.farthest_reading import at_farthest, changes_later
from pipeline.core.shown_numbers import shown_texts
from pipeline.core.types import END_REASON_TEXTS, Anomaly, AnomalyState

#: Share of the way back from the peak, from which a value has gone back.
MIN_SHARE_BACK = 0.5
#: Bases of a range that is the same at all hours, so that a later value can be compared with it.
_BASES_OF_ALL_HOURS = ("none", "all_hours")


def told_anomaly(anomaly: Anomaly, *, ended: bool | None = None) -> Anomaly:
    """Return an anomaly with the numbers that its sentence states.

    Args:
        anomaly: the anomaly.
        ended: it is over; None for its own state.
    """
    ended = anomaly.state is AnomalyState.CLOSED if ended is None else ended
    return at_farthest(anomaly) if ended and not changes_later(anomaly) else anomaly


def told_statement(
    anomaly: Anomaly, unit: str | None = None, zone: str = "", *, ended: bool | None = None
) -> str | None:
    """Return the sentence of an anomaly, that of its end where it is over.

    Messages, the API, the dashboard and commands show this sentence. It is None for numbers under the
    decision "surprise".

    Args:
        anomaly: the anomaly.
        unit: unit of the leading channel.
        zone: time zone of the time of the peak, "" for UTC.
        ended: it is over; None for its own state.
    """
    ended = anomaly.state is AnomalyState.CLOSED if ended is None else ended
    return end_statement(anomaly, unit, zone) if ended else anomaly_statement(anomaly, unit)


def end_statement(anomaly: Anomaly, unit: str | None, zone: str) -> str | None:
    """Return the sentence of an anomaly that is over.

    A later change of another kind is told beside the first one, in whose place it would not be understood.

    Args:
        anomaly: the anomaly.
        unit: unit of the leading channel.
        zone: time zone of the time of the peak, "" for UTC.
    """
    if anomaly.event is not None:
        return anomaly_statement(anomaly)  # an event has happened, and does not end
    if not changes_later(anomaly):
        farthest = at_farthest(anomaly)
        sentence, rest = anomaly_statement(farthest, unit, ended=True, zone=zone), _rest_text(farthest, unit)
        noun = {"unusual_step": "step", "trend": "drift"}.get(farthest.cause, "value")
        return sentence if sentence is None or not rest else _joined(sentence, rest, noun)
    # Later steps can be larger: the stated one is the largest of the first unbroken run.
    name = anomaly.channels[anomaly.leading_channel]
    first = (anomaly_statement(anomaly, unit, ended=True) or "").partition(", usual")[0]
    early = first.replace(" in one step", " in one of its first steps")
    first = f"{name} first{first.removeprefix(name)}" if early == first else early
    later = anomaly_statement(at_farthest(anomaly), unit, ended=True, zone=zone) or ""
    return f"{first}; then it{later.removeprefix(name)}"


def stayed(anomaly: Anomaly) -> bool | None:
    """Return whether a value stayed where its anomaly had moved it.

    None where that is not known or no question, as of a value at another hour.
    """
    context, at, last = anomaly.context, anomaly.leading_channel, _value_at_end(anomaly)
    if changes_later(anomaly) or context is None or last is None:
        return None
    observed, high = anomaly.observed[at], anomaly.upper[at]
    if anomaly.cause in ("unusual_step", "trend") and context.value is not None:
        before = context.value / (1 + observed) if anomaly.relative else context.value - observed
        way = context.value - before
        return None if way == 0 else (context.value - last) / way < MIN_SHARE_BACK
    if anomaly.cause not in ("unusual_value", "unusual_level"):
        return None
    if context.kind != "price" and context.basis not in _BASES_OF_ALL_HOURS:
        return None
    return last > high if observed > high else last < anomaly.lower[at]


def _value_at_end(anomaly: Anomaly) -> float | None:
    """Return the value at which an anomaly has recovered, None where it is not known."""
    if anomaly.state is not AnomalyState.CLOSED or anomaly.end_reason in END_REASON_TEXTS:
        return None
    return None if anomaly.course is None else anomaly.course.last


def _rest_text(anomaly: Anomaly, unit: str | None) -> str:
    """Return where the value was at the end, "" where that is not said."""
    stays, last = stayed(anomaly), _value_at_end(anomaly)
    if last is None:
        return ""
    unit, factor = data_unit(unit, last)
    (shown,) = shown_texts(last * factor)
    value = f"{shown} {unit}" if unit else shown
    if anomaly.cause not in ("unusual_step", "trend") and not stays:
        return f"now {value}, usual at this hour"
    if stays is None:
        return ""
    return f"it stayed there, at {value}" if stays else f"it {_way_back(anomaly, last)} to {value}"


def _way_back(anomaly: Anomaly, last: float) -> str:
    """Return how a value that had moved went back, with the size after a trend.

    Args:
        anomaly: the anomaly of a step or a trend.
        last: the value at the end.
    """
    context = anomaly.context
    if anomaly.cause != "trend" or context is None or not context.value:
        return "went back"
    share = last / context.value - 1
    (size,) = shown_texts(100 * abs(share))
    return f"{'rose' if share > 0 else 'fell'} back by {size} %"


def _joined(sentence: str, rest: str, noun: str) -> str:
    """Return a sentence with what follows before its usual range.

    A title that is cut at its end still has it.

    Args:
        sentence: the sentence.
        rest: where the value is.
        noun: what has the usual range.
    """
    told, comma, usual = sentence.rpartition(", usual")
    if not comma or rest.startswith("now"):
        return f"{sentence}; {rest}"
    return f"{told}; {rest} (usual {noun}{usual})"
