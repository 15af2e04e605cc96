"""Self-contained HTML page of a trial of the sensitivities."""

from __future__ import annotations

import math
from collections import Counter
from datetime import timedelta
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.alerts.messages.style import SEVERITY_COLOURS
from pipeline.core.durations import duration_text
from pipeline.core.iso_times import show_time
from pipeline.core.report_style import report_style
from pipeline.core.types import Anomaly, Severity
from pipeline.core.verdict_words import CAUSES_OF_VALUES
from pipeline.monitoring.history_replay import RecordedRows
from pipeline.monitoring.sensitivity_trial import (
    SensitivityTrial,
    TrialReport,
    event_duration,
    event_values,
)

#: Series of the timeline, pictures and rows of a table, at most. They bound the size of the page.
MAX_SERIES, MAX_PICTURES, MAX_EVENTS = 40, 12, 500
MARGIN_ROWS = 60  # of a picture, before and after an anomaly
MAX_DRAWN_ROWS = 600  # of a picture; more are thinned out
WIDTH, LABEL_WIDTH, LANE_HEIGHT, PICTURE_HEIGHT = 1100, 210, 7, 110
MAX_LABEL_CHARACTERS = 26
MIN_MARK_WIDTH = 3.0  # pixels, so that a short anomaly can be seen
TICKS = 7


def page(report: TrialReport, rows: RecordedRows) -> str:
    """Return the page. Names from the data are escaped."""
    template = Template(files("pipeline.monitoring").joinpath("sensitivity_page.html").read_text())
    configured = report.configured
    others = "".join(
        f"<h2>Anomalies of sensitivity {escape(one.sensitivity)}: {len(one.anomalies)}</h2>"
        f'<div class="wide">{_event_table(report, one)}</div>'
        for one in report.trials
        if one is not configured
    )
    return template.substitute(
        style=report_style(),
        title=escape(f"{report.stream}: what each sensitivity would have raised"),
        facts=_facts(report),
        summary=_summary(report),
        legend=_legend(),
        timeline=_timeline(report),
        configured=escape(configured.sensitivity),
        count=len(configured.anomalies),
        pictures=_pictures(report, rows),
        events=_event_table(report, configured),
        others=others,
    )


def _facts(report: TrialReport) -> str:
    learned = duration_text(timedelta(microseconds=(report.since_ns - report.learning_ns) / 1000))
    unread = f"; {report.unread:,} older rows were not read" if report.unread else ""
    facts = {
        "stream": f"{report.stream}, decision {report.decision}",
        "span": f"{_second(report.since_ns)} to {_second(report.until_ns - 1)}",
        "learning": f"{learned} of recorded history before the span",
        "size": f"{report.series:,} series, {report.rows:,} rows{unread}",
    }
    return "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())


def _summary(report: TrialReport) -> str:
    head = ("sensitivity", "alarm rate", "anomalies", "per series and month", *Severity)
    cells = "".join(f'<th class="n">{escape(one)}</th>' for one in head[1:])
    body = ""
    for one in report.trials:
        numbers = (
            f"{one.alarm_rate:g}",
            f"{len(one.anomalies):,}",
            f"{report.rate(one):.2f}",
            *(f"{one.count(severity):,}" for severity in Severity),
        )
        kind, name = (
            (' class="configured"', f"{one.sensitivity} (configured)")
            if one.configured
            else ("", one.sensitivity)
        )
        body += (
            f"<tr{kind}><td>{escape(name)}</td>"
            + "".join(f'<td class="n">{n}</td>' for n in numbers)
            + "</tr>"
        )
    return f"<table><thead><tr><th>{head[0]}</th>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _legend() -> str:
    return "".join(
        f'<span><i style="background:{colour}"></i>{name}</span>' for name, colour in SEVERITY_COLOURS.items()
    )


def _event_table(report: TrialReport, trial: SensitivityTrial) -> str:
    if not trial.anomalies:
        return '<p class="note">none</p>'
    head = ("start", "duration", "series", "severity", "cause", "statement", "raised by")
    body = ""
    for one in trial.anomalies[-MAX_EVENTS:]:
        values = event_values(one, report.units)
        cells = (
            values["series"],
            values["severity"],
            values["cause"],
            values["statement"],
            ", ".join(report.raised_by(one)),
        )
        body += f'<tr><td class="t">{_second(one.began_ns)}</td><td class="t">{event_duration(one)}</td>'
        classes = ("", *(' class="t"',) * 2, "", ' class="t"')
        body += (
            "".join(f"<td{c}>{escape(str(v))}</td>" for c, v in zip(classes, cells, strict=True)) + "</tr>"
        )
    hidden = len(trial.anomalies) - MAX_EVENTS
    note = f'<p class="note">The oldest {hidden:,} are not shown.</p>' if hidden > 0 else ""
    cells_of_head = "".join(f"<th>{one}</th>" for one in head)
    return f"{note}<table><thead><tr>{cells_of_head}</tr></thead><tbody>{body}</tbody></table>"


# Pictures.


def _timeline(report: TrialReport) -> str:
    """Return a drawing with a row per series and a lane per sensitivity."""
    counts = Counter(one.series for trial in report.trials for one in trial.anomalies)
    shown = [name for name, _ in counts.most_common(MAX_SERIES)]
    if not shown:
        return '<p class="note">No sensitivity raises an anomaly in this span.</p>'
    lanes, gap = len(report.trials), 10
    row_height = lanes * LANE_HEIGHT + gap
    top, height = 22, 22 + len(shown) * row_height + 22
    scale = _time_scale(report.since_ns, report.until_ns)
    parts = [_ticks(report.since_ns, report.until_ns, top, height - 22)]
    for number, name in enumerate(shown):
        y = top + number * row_height + gap / 2
        parts.append(
            f'<text x="0" y="{y + lanes * LANE_HEIGHT / 2 + 4:g}">'
            f"<title>{escape(name)}</title>{escape(_shortened(name))}</text>"
        )
        for lane, trial in enumerate(report.trials):
            parts.append(_lane(trial, name, y + lane * LANE_HEIGHT, scale))
    words = "; ".join(one.sensitivity for one in report.trials)
    hidden = len(counts) - len(shown)
    more = f" The {len(shown)} series with most of them; {hidden:,} others are not shown." if hidden else ""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="Anomalies by series and time">{"".join(parts)}</svg>'
        f'<p class="note">The lanes of a series, from the top: {escape(words)}.{more}</p>'
    )


def _lane(trial: SensitivityTrial, name: str, y: float, scale: Any) -> str:
    out = (
        f'<rect x="{LABEL_WIDTH}" y="{y:g}" width="{WIDTH - LABEL_WIDTH}" height="{LANE_HEIGHT - 1}" '
        f'fill="{"#dde8f3" if trial.configured else "#f1f4f7"}"/>'
    )
    for one in trial.anomalies:
        if one.series == name:
            x = scale(one.began_ns)
            width = max(scale(one.lasted_until_ns) - x, MIN_MARK_WIDTH)
            tip = f"{trial.sensitivity}: {one.severity}, {_second(one.began_ns)}, {event_duration(one)}"
            out += (
                f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{LANE_HEIGHT - 1}" '
                f'fill="{SEVERITY_COLOURS[one.severity]}"><title>{escape(tip)}</title></rect>'
            )
    return out


def _time_scale(since_ns: int, until_ns: int) -> Any:
    span = max(until_ns - since_ns, 1)
    return lambda ns: LABEL_WIDTH + (WIDTH - LABEL_WIDTH) * (ns - since_ns) / span


def _ticks(since_ns: int, until_ns: int, top: float, bottom: float) -> str:
    scale, out = _time_scale(since_ns, until_ns), ""
    for ns in np.linspace(since_ns, until_ns, TICKS, endpoint=False)[1:]:
        x, text = (
            scale(ns),
            _second(int(ns))[5:16].replace("T", " "),
        )
        out += f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom:g}" stroke="#e2e7ec"/>'
        out += f'<text x="{x:.1f}" y="14" text-anchor="middle" fill="#5b6b7a">{text}</text>'
    return out


def _pictures(report: TrialReport, rows: RecordedRows) -> str:
    """Return pictures of the most severe anomalies of the configured sensitivity."""
    ranks = {severity: rank for rank, severity in enumerate(Severity)}
    worst = sorted(report.configured.anomalies, key=lambda one: (-ranks[one.severity], -one.ratio))
    return "".join(_picture(report, rows, one) for one in worst[:MAX_PICTURES])


def _drawn_rows(values: NDArray[np.float64], low: int, high: int) -> NDArray[np.int64]:
    """Return the rows to draw: all, or the lowest and highest one of each part."""
    rows = np.arange(low, high)
    if len(rows) <= MAX_DRAWN_ROWS:
        return rows
    kept: list[int] = []
    for part in np.array_split(rows, MAX_DRAWN_ROWS // 2):
        known = part[np.isfinite(values[part])]
        if len(known):
            kept += sorted({int(known[f(values[known])]) for f in (np.argmin, np.argmax)})
    return np.array(kept, np.int64)


def _picture(report: TrialReport, rows: RecordedRows, anomaly: Anomaly) -> str:
    """Return the values around an anomaly, with its rows shaded."""
    place, channel = rows.series.index(anomaly.series), anomaly.leading_channel
    at = slice(int(rows.first[place]), int(rows.first[place + 1]))
    time, values = rows.points.time[at], rows.points.values[at, channel]
    first, last = np.searchsorted(time, anomaly.began_ns), np.searchsorted(time, anomaly.lasted_until_ns)
    margin = max(MARGIN_ROWS, int(last - first))
    low, high = max(int(first) - margin, 0), min(int(last) + margin + 1, len(time))
    drawn_rows = _drawn_rows(values, low, high)
    xs, ys = time[drawn_rows], values[drawn_rows]
    finite = ys[np.isfinite(ys)]
    if not len(finite):
        return ""
    ends = _ends_of_range(anomaly, channel)
    drawn = [float(finite.min()), float(finite.max()), *ends]
    bottom, top = min(drawn), max(drawn)
    scale = _time_scale(int(time[low]), int(time[high - 1]) + 1)
    left, right = scale(anomaly.began_ns), scale(anomaly.lasted_until_ns)

    def height(value: float) -> float:
        return 4 + (PICTURE_HEIGHT - 8) * (1 - (value - bottom) / ((top - bottom) or 1.0))

    points = " ".join(
        f"{scale(int(t)):.1f},{height(v):.1f}" for t, v in zip(xs, ys, strict=True) if np.isfinite(v)
    )
    range_lines = "".join(
        f'<line x1="{LABEL_WIDTH}" x2="{WIDTH}" y1="{height(end):.1f}" y2="{height(end):.1f}" '
        f'stroke="#1f6fc4" stroke-dasharray="5 4"/>'
        for end in ends
    )
    caption = (
        f"{anomaly.series}, {_second(anomaly.began_ns)}, {event_duration(anomaly)}, "
        f"{anomaly.severity}: {event_values(anomaly, report.units)['statement']}"
    )
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {PICTURE_HEIGHT}" width="{WIDTH}" height="{PICTURE_HEIGHT}" role="img" '
        f'aria-label="{escape(caption)}">'
        f'<rect x="{left:.1f}" y="0" width="{max(right - left, MIN_MARK_WIDTH):.1f}" '
        f'height="{PICTURE_HEIGHT}" fill="{SEVERITY_COLOURS[anomaly.severity]}" opacity="0.3"/>'
        f'{range_lines}<polyline points="{points}" fill="none" stroke="#22303c" stroke-width="1"/>'
        f'<text x="0" y="14" fill="#5b6b7a">{top:.4g}</text>'
        f'<text x="0" y="{PICTURE_HEIGHT - 4}" fill="#5b6b7a">{bottom:.4g}</text></svg></figure>'
    )


def _ends_of_range(anomaly: Anomaly, channel: int) -> list[float]:
    """Return the finite ends of the usual range if it is one of values."""
    if not anomaly.ratio or anomaly.cause not in CAUSES_OF_VALUES:
        return []
    return [end for end in (anomaly.lower[channel], anomaly.upper[channel]) if math.isfinite(end)]


def _second(ns: int) -> str:
    return show_time(ns // 1_000_000_000 * 1_000_000_000) or ""


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_LABEL_CHARACTERS else name[: MAX_LABEL_CHARACTERS - 1] + "…"
