"""Text of an alert: a title and labelled lines, from which every format for people is made."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import NamedTuple

from pipeline.alerts.messages.payload import Alert, AnomalyView, Channel, Hint, moment
from pipeline.core.durations import duration_text
from pipeline.core.iso_times import show_local_span, show_local_time
from pipeline.core.types import END_REASON_TEXTS, EndReason
from pipeline.core.verdict_words import CAUSE_TEXTS, CAUSES_OF_EVENTS, current_cause, current_forecaster

#: Control and bidirectional characters in text from outside can forge lines, headers and reading direction.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_DIRECTION = {"up": "too high", "down": "too low", "mixed": "abnormal"}
#: Cause → beginning of the message of the end, where a value can stay at its new level or an event stands.
_OVER = {"unusual_step": "Nothing unusual since: "} | dict.fromkeys(
    CAUSES_OF_EVENTS, "Nothing unusual since: "
)
_STATUS = {"acknowledged": "Acknowledged", "resolved": "Resolved", "retracted": "Retracted"}


class Line(NamedTuple):
    """One labelled line of a message."""

    label: str
    text: str


def clean(text: str, limit: int = 200) -> str:
    """Return text from outside on one line, without control characters, at most ``limit`` characters."""
    flat = _UNSAFE.sub(" ", text).strip()
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def quantity(value: float | None, unit: str | None) -> str:
    """Return a value with four significant digits and its unit."""
    if value is None:
        return "no value"
    shown = f"{float(f'{value:.4g}'):,.0f}" if 1e3 <= abs(value) < 1e15 else f"{value:.4g}"
    return shown if not unit else f"{shown} {clean(unit, 20)}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count and its noun: 1 page, 2 pages."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def group_text(key: str) -> str:
    """Return a stored group key or queue in words: labels as ``site=b2, sensor=t1``."""
    head, brace, rest = key.partition("{")
    if brace:
        try:
            labels = json.loads(brace + rest)
        except ValueError:
            return key  # a long key was replaced by its beginning and a hash
        return head + (", ".join(f"{name}={value}" for name, value in labels.items()) or "all series")
    return key.replace("*storm*", "storm of new alerts")


def rarity(surprise: float, noun: str = "points") -> str:
    """Return the rarity of a surprise (−log10 of its probability) in words.

    ``noun`` names what it is rare among.
    """
    if surprise >= 12:
        return f"less than 1 in 1,000 billion {noun} of this series"
    times = 10.0 ** max(surprise, 0.0)
    for size, word in ((1e9, " billion"), (1e6, " million"), (1, "")):
        if times >= size:
            return f"about 1 in {_round(times / size):,}{word} {noun} of this series"
    return "not rare"


def where(labels: dict[str, str], series: str) -> str:
    """Return labels as ``site=b2, sensor=t1``, or the name of the series if there are none."""
    return clean(", ".join(f"{k}={v}" for k, v in labels.items()) or series)


def title(alert: Alert) -> str:
    """Return one line with severity, value and place; at most 200 characters."""
    status = _STATUS.get(alert.status)
    head = status if status else alert.severity.capitalize()
    if alert.fault is not None:
        return clean(f"{head}: pipeline fault {alert.fault.kind.replace('_', ' ')} in {alert.stream}")
    if alert.count != 1:
        common = f" at {where(alert.labels, '')}" if alert.labels else ""
        return clean(f"{head}: {alert.count} anomalies in {alert.stream}{common}")
    anomaly = alert.anomalies[0]
    top = leading(anomaly)
    place = clean(where(anomaly.labels, anomaly.series), 80)
    if anomaly.statement:
        happened = anomaly.cause in CAUSES_OF_EVENTS
        lasted = f" after {_lasted_text(*_span(alert))}" if _is_over(alert) and not happened else ""
        return clean(f"{head}{lasted}: {alert.stream}, {place}: {anomaly.statement}")
    expected = f", expected {quantity(top.expected, top.unit)}" if top.expected is not None else ""
    return clean(f"{head}: {clean(top.name, 60)} {quantity(top.observed, top.unit)} at {place}{expected}")


def lines(alert: Alert) -> list[Line]:
    """Return the labelled lines of an alert."""
    found = [*(_fault(alert) if alert.fault is not None else _data(alert))]
    if alert.review:
        comment = f": {clean(alert.review.comment, 300)}" if alert.review.comment else ", without a comment"
        label = f"Labelled {clean(alert.review.label, 20)} by"
        found.append(Line(label, clean(alert.review.by, 100) + comment))
    elif alert.status == "retracted":
        found.append(Line("Retracted by", "late or corrected points"))
    if alert.flapping:
        flapping = "the series opens and closes repeatedly; the next message is sent when it has been quiet"
        found.append(Line("Flapping", flapping))
    if alert.budget is not None:
        used = counted(round(alert.budget.used), "page")
        planned = f"{alert.budget.pages_per_day:g} per day"
        found.append(Line("Budget", f"{used} in the last 24 h; the budget is {planned}"))
    if alert.link is not None:
        found.append(Line("Link", alert.link))
    return found


def commands(alert: Alert) -> list[Line]:
    """Return the commands that a reader may want to run next."""
    known, ended = alert.commands, alert.status in ("resolved", "retracted")
    acknowledge, silence = (None, None) if ended else (known.acknowledge, known.silence)
    pairs = (
        ("Explain", known.explain),
        ("Acknowledge", acknowledge),
        ("Label", known.label),
        ("Silence", silence),
    )
    return [Line(label, command) for label, command in pairs if command is not None]


def body(alert: Alert) -> str:
    """Return all lines as plain text."""
    return "\n".join(f"{label}: {text}" for label, text in [*lines(alert), *commands(alert)])


def leading(anomaly: AnomalyView) -> Channel:
    """Return the channel that contributes most."""
    return max(anomaly.channels, key=lambda c: c.contribution or 0.0)


def _data(alert: Alert) -> list[Line]:
    if not alert.anomalies:
        return [Line("Where", f"stream {alert.stream}")]
    worst = alert.anomalies[0]
    place, what = where(worst.labels, worst.series), _what(alert, worst)
    cause = worst.cause or current_cause(worst.evidence)  # a stored message of 0.1.0 has no cause
    if alert.count > 1:
        found = [
            Line("What", f"{alert.count} anomalies, {_open_count(alert)}. Most surprising: {place}, {what}"),
            Line("Where", f"{alert.stream}: {where(alert.labels, 'several series')}"),
        ]
    else:
        over = _OVER.get(cause, "It is over: ") if _is_over(alert) else ""
        found = [Line("What", f"{over}{what}"), Line("Where", f"{alert.stream}: {place}")]
    if cause in CAUSE_TEXTS and not worst.statement:  # a statement says it with its numbers
        found.append(Line("Cause", CAUSE_TEXTS[cause]))
    found.append(_time_line(alert))
    if alert.status == "resolved" and (end := END_REASON_TEXTS.get(EndReason(worst.end_reason))):
        found.append(Line("End", end))
    found += _advice(alert, worst, cause)
    if worst.relation:
        found.append(Line("At the peak", worst.relation))
    if len(worst.channels) > 1:
        found.append(_channels(worst))
    found += _context(alert)
    if not worst.statement or cause == "forecast":
        forecaster = worst.forecaster or current_forecaster(worst.guard)
        found.append(Line("Forecaster", f"{forecaster}, model {worst.model_version[:40]}"))
    return found


def _what(alert: Alert, anomaly: AnomalyView) -> str:
    """Return the sentence of an anomaly."""
    top, verb = leading(anomaly), "is" if alert.open_count else "was"
    direction = _DIRECTION.get(anomaly.direction, "abnormal")
    return anomaly.statement or f"{top.name} {verb} {direction}: {_observed(top)}"


def _advice(alert: Alert, anomaly: AnomalyView, cause: str) -> list[Line]:
    """Return what to do first, and why it matters how much."""
    found, happened = [], cause in CAUSES_OF_EVENTS
    if anomaly.first_step and (alert.open_count or happened):  # an event still has to be looked at
        found.append(Line("First step", anomaly.first_step))
    if anomaly.severity_reason:
        found.append(Line("Severity", anomaly.severity_reason))
    if anomaly.size:
        return [*found, Line("Size", anomaly.size)]
    return [*found, Line("Rarity", rarity(anomaly.surprise, "events" if happened else "points"))]


def _context(alert: Alert) -> list[Line]:
    """Return the other series of an alert, and those beside it."""
    found = []
    if alert.count > 1:
        found.append(Line("Series", _listed(alert)))
    if alert.root_cause:
        hints = (_hint(h, alert.timezone) for h in alert.root_cause)
        found.append(Line("Possible root cause", "; ".join(hints)))
    if alert.elsewhere:
        found.append(Line("Other series at the same time", clean(", ".join(alert.elsewhere), 400)))
    return found


def _fault(alert: Alert) -> list[Line]:
    fault = alert.fault
    assert fault is not None
    where_ = alert.stream if fault.partition is None else f"{alert.stream}, {fault.partition}"
    return [Line("What", clean(fault.message, 500)), Line("Where", where_), Line("Since", _start_text(alert))]


def _channels(anomaly: AnomalyView) -> Line:
    shown = sorted(anomaly.channels, key=lambda c: -(c.contribution or 0.0))[:5]
    if anomaly.statement:  # it states the leading channel
        others = (f"{clean(c.name, 60)}: {_observed(c)}" for c in shown[1:])
        return Line("Other channels", "; ".join(others))
    return Line("Channels", "; ".join(_channel(c) for c in shown))


def _channel(channel: Channel) -> str:
    share = 100 * (channel.contribution or 0.0)
    return f"{clean(channel.name, 60)} (contribution {share:.0f} %): {_observed(channel)}"


def _observed(channel: Channel) -> str:
    text = f"observed {quantity(channel.observed, channel.unit)}"
    if channel.expected is None:
        return text
    text += f", expected {quantity(channel.expected, channel.unit)}"
    if channel.lower is None or channel.upper is None:
        return text
    return f"{text} ({quantity(channel.lower, None)} to {quantity(channel.upper, channel.unit)})"


def _start_text(alert: Alert) -> str:
    """Return the begin of a fault, and its end."""
    shown = show_local_time(moment(alert.opened), alert.timezone)
    if alert.resolved is None:
        return shown
    ended = moment(alert.resolved)
    lasted = duration_text(ended - moment(alert.opened))
    return f"{shown}, ended {show_local_time(ended, alert.timezone)} after {lasted}"


def _span(alert: Alert) -> tuple[datetime, datetime]:
    """Return the begin of the first and the end of the last deviation of an alert."""
    began = min(moment(a.start) for a in alert.anomalies)
    ended = max(moment(a.end) for a in alert.anomalies)
    if alert.count == len(alert.anomalies):
        return began, ended
    known = alert.resolved
    return min(began, moment(alert.opened)), ended if known is None else max(ended, moment(known))


def _is_over(alert: Alert) -> bool:
    """Return True if the values are usual again."""
    return alert.status == "resolved" and not any(a.end_reason for a in alert.anomalies)


def _lasted_text(began: datetime, ended: datetime) -> str:
    return duration_text(ended - began) if ended > began else "one reading"


def _time_line(alert: Alert) -> Line:
    """Return since when an anomaly lasts, or from when to when it lasted."""
    began, ended = _span(alert)
    start, zone = show_local_time(began, alert.timezone), alert.timezone
    one = "event" if alert.anomalies[0].cause in CAUSES_OF_EVENTS else "reading"
    if alert.open_count:
        return Line(
            "Since",
            f"{start} ({duration_text(ended - began)} so far)"
            if ended > began
            else f"{start}, one {one} so far",
        )
    if ended == began:
        # The decision by surprise flags an event once, however long it lasts.
        single = f", a single {one}" if alert.anomalies[0].statement else ""
        return Line("At", f"{start}{single}" if alert.count == 1 else start)
    return Line("Lasted", f"{duration_text(ended - began)}, from {show_local_span(began, ended, zone)}")


def _listed(alert: Alert) -> str:
    names = dict.fromkeys(where(a.labels, a.series) for a in alert.anomalies)
    more = alert.count - len(alert.anomalies)
    rest = f"; and {counted(more, 'more anomaly', 'more anomalies')}" if more > 0 else ""
    return clean("; ".join(names), 600) + rest


def _open_count(alert: Alert) -> str:
    return (
        "all open"
        if alert.open_count == alert.count
        else f"{alert.open_count} open"
        if alert.open_count
        else "all ended"
    )


def _hint(hint: Hint, zone: str) -> str:
    past = f"; first in {hint.first} of {hint.together} earlier shared alerts" if hint.together else ""
    return f"{clean(hint.series, 80)} (began {show_local_time(moment(hint.started), zone)}{past})"


def _round(value: float) -> int:
    """Round to two significant digits."""
    return round(float(f"{value:.2g}"))
