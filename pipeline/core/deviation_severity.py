"""Severity of a deviation by its size and duration, and the reason in words."""

from __future__ import annotations

import math
from datetime import timedelta

from pipeline.core.deviation_size import fell_to_zero, is_many_times
from pipeline.core.durations import DAY_NS, duration_text
from pipeline.core.event_text import frequency_text, rounded_times
from pipeline.core.iso_times import show_clock_time
from pipeline.core.shown_numbers import shown_texts
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
    "longer than usual",
)
_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


def severity_of_deviation(ratio: float, rows: int) -> Severity:
    """Return the severity of a size (in half ranges) and a number of flagged rows."""
    column = sum(rows >= least for least in SEVERITY_ROWS) - 1
    return SEVERITY_TABLE[_size_of(ratio)][1][max(column, 0)]


def severity_of(anomaly: Anomaly) -> Severity:
    """Return the severity of the numbers of an anomaly.

    A count that is many times as large, or as small, as usual is at least major.
    """
    severity = severity_of_deviation(anomaly.ratio, anomaly.points)
    return max(severity, Severity.MAJOR, key=_RANKS.__getitem__) if is_many_times(anomaly) else severity


def severity_text(anomaly: Anomaly, *, ended: bool = False, zone: str = "") -> str:
    """Return why an anomaly has its severity, and when a higher one follows.

    It is empty for numbers under the decision "surprise".

    Args:
        anomaly: the anomaly.
        ended: the anomaly is over, and its severity stays as it is.
        zone: time zone of times, "" for UTC.
    """
    if anomaly.event is not None:
        return f"{anomaly.severity}, because {_reason_of_event(anomaly)}"
    if not anomaly.ratio:
        return ""
    severity, size, rows = anomaly.severity, _size_of(anomaly.ratio), anomaly.points
    reason = f"{severity}, because {_reason(anomaly, size, ended=ended)}"
    if severity_of(anomaly) is not severity:
        return f"{severity}, because it {'was' if ended else 'has been'} farther outside before"
    least = max((n for n in SEVERITY_ROWS if rows >= n), default=1)
    # The reason of a standstill is its length.
    lasts = anomaly.cause != "flatline" and not is_many_times(anomaly)
    if least > 1 and lasts and severity_of_deviation(anomaly.ratio, 1) is not severity:
        reason += f" for {least} readings or more"
    following = [
        n
        for n in SEVERITY_ROWS
        if rows < n and _RANKS[severity_of_deviation(anomaly.ratio, n)] > _RANKS[severity]
    ]
    if ended or not following or anomaly.cause == "unusual_step":  # one step does not go on
        return reason
    higher = severity_of_deviation(anomaly.ratio, following[0])
    return f"{reason}; becomes {higher} {_when(anomaly, following[0], zone)} if it goes on"


def _reason_of_event(anomaly: Anomaly) -> str:
    """Return the rarity of an event that its sentence states."""
    probability = anomaly.event.probability if anomaly.event is not None else math.nan
    if anomaly.cause == "new_event":
        return "it was never seen before"
    if anomaly.cause == "unusual_sequence":
        return (
            f"as many improbable events come together about once in {rounded_times(anomaly.surprise)} events"
        )
    return f"this comes {frequency_text(probability)}"


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
    if anomaly.cause == "static_limit":
        return f"it {is_} outside its limit"
    if is_many_times(anomaly):
        return f"it {is_} {_multiple(anomaly)}"
    if fell_to_zero(anomaly):
        return f"it {is_} zero, {_SIZES[size].removeprefix('just ')} its usual range"
    return f"it {is_} {_SIZES[size]} its usual range"


def _multiple(anomaly: Anomaly) -> str:
    """Return how far a count is from its usual range."""
    at = anomaly.leading_channel
    value, low, high = anomaly.observed[at], anomaly.lower[at], anomaly.upper[at]
    if value > high:
        (times,) = shown_texts(float(f"{value / high:.2g}"))
        return f"{times} times the largest usual value"
    (times,) = shown_texts(float(f"{low / max(value, 1.0):.2g}"))
    return "zero" if fell_to_zero(anomaly) else f"below the least usual value by a factor of {times}"


def _when(anomaly: Anomaly, rows: int, zone: str) -> str:
    """Return when an anomaly has a number of flagged rows, if each further row is one."""
    if anomaly.every_ns <= 0:
        return f"after {rows} readings"
    ahead = (rows - anomaly.points) * anomaly.every_ns
    if ahead >= DAY_NS:
        return f"in {duration_text(timedelta(microseconds=ahead / 1000))}"
    return f"by {show_clock_time(anomaly.end_ns + ahead, zone)}"
