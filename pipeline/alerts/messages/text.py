"""An alert in words: one title and a few labelled lines, from which every format for people is made."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import NamedTuple

from pipeline.alerts.messages.payload import Alert, AnomalyView, Channel, Hint, moment
from pipeline.core.verdict_words import CAUSE_TEXTS, current_cause, current_forecaster

#: Control and bidirectional characters can forge lines, headers and reading direction wherever text from
#: outside is shown.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_WENT = {"up": "too high", "down": "too low", "mixed": "off"}
_STATUS = {"acknowledged": "Acknowledged", "resolved": "Resolved", "retracted": "Retracted"}


class Line(NamedTuple):
    """One labelled line of a message."""

    label: str
    text: str


def clean(text: str, limit: int = 200) -> str:
    """``text`` from outside on one line, without control characters, at most ``limit`` characters."""
    flat = _UNSAFE.sub(" ", text).strip()
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def quantity(value: float | None, unit: str | None) -> str:
    if value is None:
        return "nothing"
    shown = f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    return shown if not unit else f"{shown} {clean(unit, 20)}"


def duration(span: timedelta) -> str:
    """The two largest units: 3 h 20 min."""
    rest = max(int(span.total_seconds()), 0)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "a moment"


def rarity(surprise: float) -> str:
    """How rare a value is that is this surprising (−log10 of its probability)."""
    if surprise >= 12:
        return "practically impossible in this series' own past"
    times = 10.0 ** max(surprise, 0.0)
    for size, word in ((1e9, " billion"), (1e6, " million"), (1, "")):
        if times >= size:
            return f"about 1 in {_round(times / size):,}{word} points of this series"
    return "not rare"


def where(labels: dict[str, str], series: str) -> str:
    return clean(", ".join(f"{k}={v}" for k, v in labels.items()) or series)


def title(alert: Alert) -> str:
    """One line: severity, what, where; at most 200 characters."""
    status = _STATUS.get(alert.status)
    head = status if status else alert.severity.capitalize()
    if alert.fault is not None:
        return clean(f"{head}: pipeline fault {alert.fault.kind.replace('_', ' ')} in {alert.stream}")
    if alert.count != 1:
        common = f" at {where(alert.labels, '')}" if alert.labels else ""
        return clean(f"{head}: {alert.count} anomalies in {alert.stream}{common}")
    anomaly = alert.anomalies[0]
    top = leading(anomaly)
    expected = f", expected {quantity(top.expected, top.unit)}" if top.expected is not None else ""
    place = clean(where(anomaly.labels, anomaly.series), 80)
    return clean(f"{head}: {clean(top.name, 60)} {quantity(top.observed, top.unit)} at {place}{expected}")


def lines(alert: Alert) -> list[Line]:
    """What, where, since when, how rare, which channels, what else, who says so, what to do."""
    found = [*(_fault(alert) if alert.fault is not None else _data(alert))]
    if alert.flapping:
        found.append(
            Line(
                "Flapping",
                "this series opens and closes again and again; the next message comes when it is quiet",
            )
        )
    if alert.budget is not None:
        found.append(
            Line(
                "Budget",
                f"{alert.budget.used:.0f} pages in 24 h, {alert.budget.pages_per_day:g} a day are planned",
            )
        )
    if alert.link is not None:
        found.append(Line("Link", alert.link))
    return found


def commands(alert: Alert) -> list[Line]:
    """The commands for what a reader may want to do next."""
    known, over = alert.commands, alert.status in ("resolved", "retracted")
    acknowledge, silence = (None, None) if over else (known.acknowledge, known.silence)
    pairs = (
        ("Explain", known.explain),
        ("Acknowledge", acknowledge),
        ("Label", known.label),
        ("Silence", silence),
    )
    return [Line(label, command) for label, command in pairs if command is not None]


def body(alert: Alert) -> str:
    """All lines as plain text."""
    return "\n".join(f"{label}: {text}" for label, text in [*lines(alert), *commands(alert)])


def leading(anomaly: AnomalyView) -> Channel:
    """The channel that contributes most."""
    return max(anomaly.channels, key=lambda c: c.contribution or 0.0)


def _data(alert: Alert) -> list[Line]:
    if not alert.anomalies:
        return [Line("Where", f"stream {alert.stream}")]
    worst = alert.anomalies[0]
    top, place = leading(worst), where(worst.labels, worst.series)
    verb = "is" if alert.open_count else "was"
    what = f"{top.name} {verb} {_WENT.get(worst.direction, 'off')}: {_observed(top)}"
    if alert.count > 1:
        found = [
            Line(
                "What", f"{alert.count} anomalies, {_how_many(alert)}; the most surprising at {place}: {what}"
            )
        ]
        found.append(Line("Where", f"{alert.stream}: {where(alert.labels, 'several places')}"))
    else:
        found = [Line("What", what), Line("Where", f"{alert.stream}: {place}")]
    cause = worst.cause or current_cause(worst.evidence)  # a stored message of 0.1.0 has no cause
    if cause in CAUSE_TEXTS:
        found.append(Line("Raised by", CAUSE_TEXTS[cause]))
    found.append(Line("Since", _since(alert)))
    found.append(Line("How rare", rarity(worst.surprise)))
    if len(worst.channels) > 1:
        shares = sorted(worst.channels, key=lambda c: -(c.contribution or 0.0))[:5]
        found.append(
            Line(
                "Channels",
                "; ".join(
                    f"{clean(c.name, 60)} {c.contribution or 0.0:.0%} ({_observed(c)})" for c in shares
                ),
            )
        )
    if alert.count > 1:
        found.append(Line("Series", _listed(alert)))
    if alert.root_cause:
        found.append(Line("Look first at", "; ".join(_hint(h) for h in alert.root_cause)))
    if alert.elsewhere:
        found.append(Line("At the same time", clean(", ".join(alert.elsewhere), 400)))
    forecaster = worst.forecaster or current_forecaster(worst.guard)
    found.append(Line("Decided by", f"{forecaster}, model {worst.model_version[:40]}"))
    return found


def _fault(alert: Alert) -> list[Line]:
    fault = alert.fault
    assert fault is not None
    where_ = alert.stream if fault.partition is None else f"{alert.stream}, {fault.partition}"
    return [Line("What", clean(fault.message, 500)), Line("Where", where_), Line("Since", _since(alert))]


def _observed(channel: Channel) -> str:
    text = f"{quantity(channel.observed, channel.unit)} observed"
    if channel.expected is None:
        return text
    text += f", {quantity(channel.expected, channel.unit)} expected"
    if channel.lower is None or channel.upper is None:
        return text
    return f"{text} ({quantity(channel.lower, None)} to {quantity(channel.upper, channel.unit)})"


def _since(alert: Alert) -> str:
    began = moment(alert.opened)
    shown = f"{began:%Y-%m-%d %H:%M:%S} UTC"
    if alert.resolved is not None:
        return f"{shown}, over after {duration(moment(alert.resolved) - began)}"
    ends = [moment(a.end) for a in alert.anomalies]
    lasted = max(ends) - began if ends else timedelta(0)
    return f"{shown}, for {duration(lasted)} so far" if lasted else shown


def _listed(alert: Alert) -> str:
    names = dict.fromkeys(where(a.labels, a.series) for a in alert.anomalies)
    more = alert.count - len(alert.anomalies)
    return clean("; ".join(names), 600) + (f"; and {more} more anomalies" if more > 0 else "")


def _how_many(alert: Alert) -> str:
    return (
        "all lasting"
        if alert.open_count == alert.count
        else f"{alert.open_count} lasting"
        if alert.open_count
        else "all over"
    )


def _hint(hint: Hint) -> str:
    past = f", first in {hint.first} of {hint.together} such alerts before" if hint.together else ""
    return f"{clean(hint.series, 80)} (since {moment(hint.started):%H:%M:%S}{past})"


def _round(value: float) -> int:
    """Two significant digits."""
    return round(float(f"{value:.2g}"))
