"""Farthest reading of an anomaly, and the window of its begin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pipeline.core.iso_times import show_clock_time
from pipeline.core.types import Anomaly
from pipeline.core.usual_range_text import EXTREME_HOURS, MEAN_READINGS, RELATION_READINGS, TREND_READINGS
from pipeline.core.verdict_words import CAUSES_OF_CHANGES

HOUR_NS = 3_600_000_000_000
#: Causes of a change of the leading channel against its own values.
_CHANGES_OF_ITSELF = {"unusual_step", "unusual_noise", "trend"}
#: Cause of a mean → the readings that it covers.
READINGS_OF_MEANS = {
    "unusual_level": MEAN_READINGS,
    "unusual_noise": MEAN_READINGS,
    "relation": RELATION_READINGS,
    "trend": TREND_READINGS,
}


def changes_later(anomaly: Anomaly) -> bool:
    """Return True if the farthest reading is another kind of change than the first.

    A sentence about it alone would not be about what was told first.
    """
    far = None if anomaly.context is None else anomaly.context.farthest
    return far is not None and anomaly.cause != far.cause and {anomaly.cause, far.cause} <= _CHANGES_OF_ITSELF


def at_farthest(anomaly: Anomaly) -> Anomaly:
    """Return an anomaly with the numbers of its farthest reading, itself if that is the peak.

    A message of the end states how far it went at most, whichever quantity led at first.
    """
    context = anomaly.context
    if context is None or context.farthest is None:
        return anomaly
    far, at = context.farthest, anomaly.leading_channel
    course = anomaly.course
    # The time of the farthest reading is not known of anomalies of version 0.2 and earlier.
    timed = course is not None and course.farthest_ns > 0
    low, high = (math.nan if end is None else end for end in (far.low, far.high))
    finite = [end for end in (low, high) if math.isfinite(end)]
    middle = sum(finite) / len(finite) if finite else math.nan
    beside = replace(
        context, basis=far.basis, value=far.value, recent_mean=None, partner=None, implied=None, farthest=None
    )
    logarithmic = context.kind in ("count", "price", "volume")
    return replace(
        anomaly,
        observed=_with(anomaly.observed, at, far.observed),
        expected=_with(anomaly.expected, at, middle),
        lower=_with(anomaly.lower, at, low),
        upper=_with(anomaly.upper, at, high),
        peak_ns=course.farthest_ns if course is not None and timed else anomaly.peak_ns,
        course=course if timed else None,
        cause=far.cause,
        ratio=far.ratio,
        context=beside,
        relative=logarithmic and far.cause in CAUSES_OF_CHANGES,
    )


def _with(numbers: Sequence[float], at: int, number: float) -> list[float]:
    """Return numbers with another one at a place."""
    return [*numbers[:at], number, *numbers[at + 1 :]]


def begin_window_ns(anomaly: Anomaly) -> int:
    """Return by how much a deviation can have begun earlier than stated."""
    if anomaly.course is not None:
        return anomaly.course.uncertain_ns
    # Anomalies of version 0.2 and earlier have no estimate of the begin.
    return window_ns(anomaly.cause, anomaly.every_ns) if anomaly.ratio else 0


def window_ns(cause: str, every_ns: int) -> int:
    """Return the window of the mean, or of the extreme, that a cause is about, else 0.

    Args:
        cause: the cause.
        every_ns: cadence of the series, 0 for unknown.
    """
    if cause == "absence":
        return EXTREME_HOURS * HOUR_NS
    return READINGS_OF_MEANS.get(cause, 0) * max(every_ns, 0)


def begin_texts(anomaly: Anomaly, zone: str) -> tuple[str, str]:
    """Return the stated begin of a deviation and the earliest one, "" if it is sure.

    Args:
        anomaly: the anomaly.
        zone: time zone, "" for UTC.
    """
    uncertain_ns = begin_window_ns(anomaly)
    earliest = show_clock_time(anomaly.began_ns - uncertain_ns, zone) if uncertain_ns else ""
    return show_clock_time(anomaly.began_ns, zone), earliest
