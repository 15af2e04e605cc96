"""Output of `forewatch alerts test`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pipeline.cli.output import show_table
from pipeline.cli.times import show_second, show_time

if TYPE_CHECKING:
    from pipeline.alerts.simulation import SimulationReport, StreamReport


def report_values(report: SimulationReport, endpoints: Iterable[str]) -> dict[str, Any]:
    """Return the values of ``--json``."""
    return {
        "days": report.days,
        "streams": {
            name: {
                "anomalies": stream.anomalies,
                "fates": stream.event_results,
                "pages": stream.pages,
                "pages_per_day": stream.budget_per_day,
            }
            for name, stream in report.streams.items()
        },
        "endpoints": {name: sum(e == name for e, _, _ in report.sent) for name in endpoints},
        "messages": [
            {
                "at": show_time(at_ns),
                "endpoint": endpoint,
                "type": p.type,
                "title": p.data.title,
                "rule": p.data.rule,
                "urgency": p.data.urgency,
            }
            for endpoint, at_ns, p in report.sent
        ],
        "dropped": [
            {
                "at": show_time(at_ns),
                "why": why,
                "stream": a.stream,
                "series": a.series,
                "severity": a.severity,
                "anomaly": str(a.id),
            }
            for at_ns, why, a in report.dropped
        ],
    }


def print_report(report: SimulationReport, endpoints: Iterable[str], show_all: bool) -> None:
    """Print counts by endpoint and stream; with ``show_all`` also messages and dropped anomalies."""
    kinds = ("opened", "updated", "repeated", "resolved", "revised", "retracted")
    rows: list[tuple[Any, ...]] = []
    for name in endpoints:
        sent = [p.kind for endpoint, _, p in report.sent if endpoint == name]
        counts = [sent.count(kind) for kind in kinds]
        rows.append((name, len(sent), *counts, f"{sent.count('opened') / report.days:.1f}"))
    show_table(("endpoint", "messages", *kinds, "alerts per day"), rows, "no endpoints")
    print()
    rows = [
        (name, stream.anomalies, result, count)
        for name, stream in report.streams.items()
        for result, count in sorted(stream.event_results.items())
    ]
    show_table(("stream", "anomalies", "result of events", "events"), rows, "no anomalies in this time")
    for name, stream in report.streams.items():
        print(_budget_line(name, stream, report.days))
    if show_all:
        _print_messages(report)


def _print_messages(report: SimulationReport) -> None:
    print()
    messages = [
        (show_second(at_ns), endpoint, p.kind, p.data.urgency, p.data.rule, p.data.title)
        for endpoint, at_ns, p in report.sent
    ]
    show_table(("at", "endpoint", "kind", "urgency", "rule", "title"), messages, "no messages")
    print()
    dropped = [
        (show_second(at_ns), reason, a.stream, a.series, a.severity, str(a.id)[:13])
        for at_ns, reason, a in report.dropped
    ]
    columns = ("at", "reason", "stream", "series", "severity", "anomaly")
    show_table(columns, dropped, "no anomalies were dropped")


def _budget_line(name: str, stream: StreamReport, days: float) -> str:
    from datetime import timedelta

    from pipeline.alerts.messages.text import counted
    from pipeline.core.durations import duration_text

    per_day = stream.pages / days
    line = f"{name}: {counted(stream.pages, 'page')} in {duration_text(timedelta(days=days))} ({per_day:.2g} per day)"
    if stream.budget_per_day is None:
        return f"{line}; no budget"
    line += f"; the budget is {stream.budget_per_day:g} per day"
    if per_day >= 0.8 * stream.budget_per_day:
        return line
    return (
        f"{line}. The budget is not used up: a higher alarm_rate of the stream would find smaller anomalies"
    )
