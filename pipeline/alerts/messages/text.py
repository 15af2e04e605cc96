"""Text of an alert: a title and labelled lines, from which every format for people is made."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from pipeline.alerts.messages.payload import Alert, AnomalyView, Channel, Hint, moment
from pipeline.core.data_units import data_unit
from pipeline.core.durations import duration_text
from pipeline.core.iso_times import show_local_span, show_local_time
from pipeline.core.shown_numbers import NO_VALUE, shown_texts
from pipeline.core.types import END_REASON_TEXTS, EndReason
from pipeline.core.verdict_words import CAUSE_TEXTS, CAUSES_OF_EVENTS, current_cause

#: Control and bidirectional characters in text from outside can forge lines, headers and reading direction.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
#: Cause → what the message of the end adds, where a value can stay at its new level.
_OVER = {
    "unusual_step": "nothing unusual since; the value can be at a new level",
    "trend": "nothing unusual since; the price can stay where it is",
}
#: Cause → what the message of the end adds about an event, which has happened.
_SINCE_EVENT = dict.fromkeys(CAUSES_OF_EVENTS, "nothing unusual since") | {
    "missing_event": "nothing unusual since, but whether the step came later is not known"
}
MAX_DECIMALS = 6
#: Characters of a title: the sentence of the end of a price that moved has up to 270.
MAX_TITLE = 280
_STATUS = {"acknowledged": "Acknowledged", "resolved": "Resolved", "retracted": "Retracted"}


class Line(NamedTuple):
    """One labelled line of a message."""

    label: str
    text: str


def clean(text: str, limit: int = 200) -> str:
    """Return text from outside on one line, without control characters, at most ``limit`` characters."""
    flat = _UNSAFE.sub(" ", text).strip()
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def quantities(values: Sequence[float | None], *, counts: bool = False) -> list[str]:
    """Return values with the same decimals.

    The largest has three significant digits, above 1,000 four.

    Args:
        values: The values.
        counts: They are counts, which have no decimals.
    """
    largest = max((abs(one) for one in values if one is not None), default=0.0)
    decimals = max(2 - math.floor(math.log10(largest)), 0) if largest > 0 and not counts else 0
    return [_quantity(one, decimals) for one in values]


def _quantity(value: float | None, decimals: int) -> str:
    if value is None:
        return NO_VALUE
    if abs(value) >= 1e15 or decimals > MAX_DECIMALS:
        return f"{value:.3g}"
    text = f"{float(f'{value:.4g}') if abs(value) >= 1e3 else value:,.{decimals}f}"
    return text if float(text.replace(",", "")) or not text.startswith("-") else text[1:]


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
    """Return severity, place and value on one line of at most ``MAX_TITLE``."""
    status = _STATUS.get(alert.status)
    head = status if status else _severity(alert)
    if alert.fault is not None:
        return clean(f"{head}: pipeline fault {alert.fault.kind.replace('_', ' ')} in {alert.stream}")
    if alert.count != 1:
        common = f" at {where(alert.labels, '')}" if alert.labels else ""
        largest = f"; the largest: {_what(alert, alert.anomalies[0])}" if alert.anomalies else ""
        return clean(f"{head}: {alert.count} anomalies in {alert.stream}{common}{largest}")
    anomaly = alert.anomalies[0]
    place = clean(where(anomaly.labels, anomaly.series), 80)
    if anomaly.statement:
        # An event, and a change that stays, have happened; they did not last.
        happened = anomaly.cause in CAUSES_OF_EVENTS
        lasts = not happened and not (anomaly.stayed and anomaly.readings == 1)
        lasted = f" after {_lasted_text(*_span(alert))}" if _is_over(alert) and lasts else ""
        since = f"; {_SINCE_EVENT[anomaly.cause]}" if happened and _is_over(alert) else ""
        return clean(f"{head}{lasted}: {alert.stream}, {place}: {anomaly.statement}{since}", MAX_TITLE)
    return clean(f"{head}: {alert.stream}, {place}: {_what(alert, anomaly)}")


def _severity(alert: Alert) -> str:
    """Return the severity, with the one of the messages before where that was another."""
    former = [one for one in alert.severities if one != alert.severity]
    return f"{alert.severity.capitalize()} (was {former[-1]})" if former else alert.severity.capitalize()


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
            Line("What", f"{alert.count} anomalies, {_open_count(alert)}. The largest: {place}, {what}"),
            Line("Where", f"{alert.stream}: {where(alert.labels, 'several series')}"),
        ]
    else:
        # A title that was cut does not end with the sentence.
        found = [] if alert.title.endswith(clean(what, 10_000)) else [Line("What", what)]
        found.append(Line("Where", f"{alert.stream}: {place}"))
    if cause in CAUSE_TEXTS and not worst.statement:  # a statement says it with its numbers
        found.append(Line("Cause", CAUSE_TEXTS[cause]))
    found.append(_time_line(alert))
    end = END_REASON_TEXTS.get(EndReason(worst.end_reason)) or (_OVER.get(cause) if _is_over(alert) else None)
    if alert.status == "resolved" and end and worst.stayed is None:
        found.append(Line("End", end))
    found += _advice(alert, worst, cause)
    if worst.relation:
        found.append(Line("At the peak", worst.relation))
    if len(worst.channels) > 1:
        found.append(_channels(worst))
    found += _context(alert)
    return found


def _what(alert: Alert, anomaly: AnomalyView) -> str:
    """Return the sentence of an anomaly."""
    if anomaly.statement:
        return anomaly.statement
    top, verb = leading(anomaly), "is" if alert.open_count else "was"
    return f"{clean(top.name, 60)} {verb} {_observed(top)}"


def _advice(alert: Alert, anomaly: AnomalyView, cause: str) -> list[Line]:
    """Return what to do first, and why it matters how much."""
    found, happened = [], cause in CAUSES_OF_EVENTS
    if anomaly.first_step and (alert.open_count or happened):  # an event still has to be looked at
        found.append(Line("First step", anomaly.first_step))
    if anomaly.severity_reason:
        found.append(Line("Severity", anomaly.severity_reason))
    if anomaly.size:
        return [*found, Line("Size", anomaly.size)]
    if happened:  # its sentence says how often it comes
        return found
    return [*found, Line("Size", rarity(anomaly.surprise))]


def _context(alert: Alert) -> list[Line]:
    """Return the other series of an alert, and those beside it."""
    found = []
    if alert.count > 1:
        found.append(Line("Series", _listed(alert)))
    if alert.root_cause:
        found.append(Line("Possible root cause", _hints(alert.root_cause, alert.timezone)))
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
    others = (f"{clean(c.name, 60)} {_observed(c)}" for c in shown[1:])
    return Line("Other channels", "; ".join(others))


def _observed(channel: Channel) -> str:
    """Return the value of a channel, and its forecast."""
    numbers = (channel.observed, channel.expected, channel.lower, channel.upper)
    is_count = (
        channel.unit is None and channel.observed is not None and channel.observed == round(channel.observed)
    )
    size = min((abs(one) for one in numbers[:2] if one), default=0.0)
    shown, factor = data_unit(channel.unit, size)
    texts = quantities(numbers, counts=is_count)
    if factor != 1:
        texts = [NO_VALUE if one is None else shown_texts(one * factor)[0] for one in numbers]
    value, forecast, low, high = texts
    unit = f" {clean(shown, 20)}" if shown else ""
    text = value if channel.observed is None else f"{value}{unit}"
    if channel.expected is None:
        return text
    if channel.lower is None or channel.upper is None:
        return f"{text}, forecast {forecast}{unit}"
    inside = channel.observed is None or channel.lower <= channel.observed <= channel.upper
    return f"{text}, {'' if inside else 'outside its '}forecast {forecast}{unit} ({low} to {high}{unit})"


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
        so_far = f" ({duration_text(ended - began)} so far)" if ended > began else f", one {one} so far"
        return Line("Since", f"{start}{so_far}{_earlier(alert)}")
    if ended == began:
        # The decision by surprise flags an event once, however long it lasts.
        single = f", a single {one}" if alert.anomalies[0].statement and not alert.anomalies[0].stayed else ""
        return Line("At", f"{start}{single}" if alert.count == 1 else start)
    return Line("Lasted", f"{duration_text(ended - began)}, from {show_local_span(began, ended, zone)}")


def _earlier(alert: Alert) -> str:
    """Return by how much one anomaly may have begun earlier."""
    uncertain = alert.anomalies[0].start_uncertainty_s
    if alert.count != 1 or not uncertain:
        return ""
    return f"; it may have begun up to {duration_text(timedelta(seconds=uncertain))} earlier"


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


def _hints(hints: Sequence[Hint], zone: str) -> str:
    """Return the series that began first; those that are equally likely together."""
    alike: dict[tuple[int, int, str], list[str]] = {}
    for hint in hints:
        key = (hint.first, hint.together, show_local_time(moment(hint.started), zone))
        alike.setdefault(key, []).append(clean(hint.series, 80))
    return "; ".join(_hint(names, *key) for key, names in alike.items())


def _hint(names: list[str], first: int, together: int, began: str) -> str:
    each = "each " if len(names) > 1 else ""
    past = f"; {each}first in {first} of {together} earlier shared alerts" if together else ""
    return f"{' or '.join(names)} (began {began}{past})"


def _round(value: float) -> int:
    """Round to two significant digits."""
    return round(float(f"{value:.2g}"))
