"""Severity of a deviation by its size and duration, and the reason in words."""

from __future__ import annotations

from datetime import timedelta

from pipeline.core.deviation_size import fell_to_zero
from pipeline.core.durations import duration_text
from pipeline.core.types import Anomaly, Severity

#: Fewest flagged rows of each column of ``SEVERITY_TABLE``.
SEVERITY_ROWS = (1, 5, 30)
#: Least ratio (distance from the middle of the usual range, in half ranges) → severity by the flagged rows.
SEVERITY_TABLE = (
    (6.0, (Severity.CRITICAL, Severity.CRITICAL, Severity.CRITICAL)),
    (2.0, (Severity.MAJOR, Severity.MAJOR, Severity.CRITICAL)),
    (1.15, (Severity.WARNING, Severity.MAJOR, Severity.MAJOR)),
    (0.0, (Severity.INFO, Severity.WARNING, Severity.MAJOR)),
)
#: Row of ``SEVERITY_TABLE`` → the size in words; a standstill has a length.
_SIZES = ("very far outside", "far outside", "outside", "just outside")
_LENGTHS = (
    "very much longer than usual",
    "much longer than usual",
    "longer than usual",
    "a little longer than usual",
)
#: Severity of an event → how rare it is at least (``pipeline.scoring.anomaly_tracker.SEVERITIES``).
_EVENT_RARITIES = {
    Severity.WARNING: "it is at least ten times",
    Severity.MAJOR: "it is at least a thousand times",
    Severity.CRITICAL: "it is at least a million times",
}
_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


def severity_of_deviation(ratio: float, rows: int) -> Severity:
    """Return the severity of a size (in half ranges) and a number of flagged rows."""
    column = sum(rows >= least for least in SEVERITY_ROWS) - 1
    return SEVERITY_TABLE[_size_of(ratio)][1][max(column, 0)]


def severity_text(anomaly: Anomaly, *, ended: bool = False) -> str:
    """Return why an anomaly has its severity, and when a higher one follows.

    It is empty for numbers under the decision "surprise".

    Args:
        anomaly: the anomaly.
        ended: the anomaly is over, and its severity stays as it is.
    """
    if anomaly.event is not None and anomaly.severity in _EVENT_RARITIES:
        return (
            f"{anomaly.severity}, because {_EVENT_RARITIES[anomaly.severity]} as rare as what raises an alarm"
        )
    if not anomaly.ratio:
        return ""
    severity, size, rows = anomaly.severity, _size_of(anomaly.ratio), anomaly.points
    reason = f"{severity}, because {_reason(anomaly, size, ended=ended)}"
    if severity_of_deviation(anomaly.ratio, rows) is not severity:
        return f"{severity}, because it {'was' if ended else 'has been'} farther outside before"
    least = max((n for n in SEVERITY_ROWS if rows >= n), default=1)
    if least > 1 and severity_of_deviation(anomaly.ratio, 1) is not severity:
        reason += f" for {least} readings or more"
    following = [
        n
        for n in SEVERITY_ROWS
        if rows < n and _RANKS[severity_of_deviation(anomaly.ratio, n)] > _RANKS[severity]
    ]
    if ended or not following:
        return reason
    higher = severity_of_deviation(anomaly.ratio, following[0])
    return f"{reason}; {higher} after {_span(following[0], anomaly.every_ns)}"


def _size_of(ratio: float) -> int:
    """Return the row of ``SEVERITY_TABLE`` of a ratio."""
    return next(row for row, (least, _) in enumerate(SEVERITY_TABLE) if ratio >= least or least == 0.0)


def _reason(anomaly: Anomaly, size: int, *, ended: bool) -> str:
    """Return the size of a deviation in words."""
    is_ = "was" if ended else "is"
    if anomaly.cause == "impossible_value":
        return "such a value is not possible"
    if anomaly.cause == "flatline":
        return f"the standstill {is_} {_LENGTHS[size]}"
    of = "its limit" if anomaly.cause == "static_limit" else "its usual range"
    if fell_to_zero(anomaly):
        return f"it {is_} zero, {_SIZES[size].removeprefix('just ')} {of}"
    return f"it {is_} {_SIZES[size]} {of}"


def _span(rows: int, every_ns: int) -> str:
    """Return a number of readings, with their duration where the cadence is known."""
    lasted = f" ({duration_text(timedelta(microseconds=rows * every_ns / 1000))})" if every_ns > 0 else ""
    return f"{rows} readings{lasted}"
