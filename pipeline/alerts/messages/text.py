"""Text of an alert: a title and labelled lines, from which every format for people is made."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import NamedTuple

from pipeline.alerts.messages.payload import Alert, AnomalyView, Channel, Hint, moment
from pipeline.core.durations import duration_text
from pipeline.core.first_steps import FIRST_STEPS
from pipeline.core.iso_times import show_local_time
from pipeline.core.types import END_REASON_TEXTS, EndReason
from pipeline.core.verdict_words import CAUSE_TEXTS, current_cause, current_forecaster

#: Control and bidirectional characters in text from outside can forge lines, headers and reading direction.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_DIRECTION = {"up": "too high", "down": "too low", "mixed": "abnormal"}
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


def rarity(surprise: float) -> str:
    """Return the rarity of a surprise (−log10 of its probability) in words."""
    if surprise >= 12:
        return "less than 1 in 1,000 billion points of this series"
    times = 10.0 ** max(surprise, 0.0)
    for size, word in ((1e9, " billion"), (1e6, " million"), (1, "")):
        if times >= size:
            return f"about 1 in {_round(times / size):,}{word} points of this series"
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
        return clean(f"{head}: {alert.stream}, {place}: {anomaly.statement}")
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
    top, place = leading(worst), where(worst.labels, worst.series)
    verb = "is" if alert.open_count else "was"
    what = (
        worst.statement
        or f"{top.name} {verb} {_DIRECTION.get(worst.direction, 'abnormal')}: {_observed(top)}"
    )
    if alert.count > 1:
        found = [
            Line("What", f"{alert.count} anomalies, {_open_count(alert)}. Most surprising: {place}, {what}"),
            Line("Where", f"{alert.stream}: {where(alert.labels, 'several series')}"),
        ]
    else:
        found = [Line("What", what), Line("Where", f"{alert.stream}: {place}")]
    cause = worst.cause or current_cause(worst.evidence)  # a stored message of 0.1.0 has no cause
    if cause in CAUSE_TEXTS and not worst.statement:  # a statement says it with its numbers
        found.append(Line("Cause", CAUSE_TEXTS[cause]))
    found.append(Line("Since", _start_text(alert)))
    if alert.status == "resolved" and (end := END_REASON_TEXTS.get(EndReason(worst.end_reason))):
        found.append(Line("End", end))
    found.append(Line("Size", worst.size) if worst.size else Line("Rarity", rarity(worst.surprise)))
    if len(worst.channels) > 1:
        found.append(_channels(worst))
    if alert.count > 1:
        found.append(Line("Series", _listed(alert)))
    if alert.root_cause:
        hints = (_hint(h, alert.timezone) for h in alert.root_cause)
        found.append(Line("Possible root cause", "; ".join(hints)))
    if alert.elsewhere:
        found.append(Line("Other series at the same time", clean(", ".join(alert.elsewhere), 400)))
    return [*found, *_advice(worst, cause, ended=not alert.open_count)]


def _advice(anomaly: AnomalyView, cause: str, *, ended: bool) -> list[Line]:
    """Return the first step of a person, and the forecaster where it matters."""
    found = [Line("First step", FIRST_STEPS[cause])] if cause in FIRST_STEPS and not ended else []
    if not anomaly.statement or cause == "forecast":
        forecaster = anomaly.forecaster or current_forecaster(anomaly.guard)
        found.append(Line("Forecaster", f"{forecaster}, model {anomaly.model_version[:40]}"))
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
    began = moment(alert.opened)
    shown = show_local_time(began, alert.timezone)
    if alert.count == 1 and alert.anomalies and alert.anomalies[0].points == 1:
        return f"{shown}, {'one reading so far' if alert.open_count else 'a single reading'}"
    if alert.resolved is not None:
        ended = moment(alert.resolved)
        return f"{shown}, ended {show_local_time(ended, alert.timezone)} after {duration_text(ended - began)}"
    ends = [moment(a.end) for a in alert.anomalies]
    lasted = max(ends) - began if ends else timedelta(0)
    return f"{shown} ({duration_text(lasted)} so far)" if lasted else shown


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
