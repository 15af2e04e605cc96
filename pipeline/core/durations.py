"""Units of time: spans of time as whole nanoseconds."""

from __future__ import annotations

from datetime import timedelta

SECOND_NS = 1_000_000_000


def to_nanoseconds(duration: timedelta) -> int:
    """Return a span as whole nanoseconds."""
    return duration // timedelta(microseconds=1) * 1000
