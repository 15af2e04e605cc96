"""Spans of time as whole nanoseconds and as text."""

from __future__ import annotations

from datetime import timedelta

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS


def to_nanoseconds(duration: timedelta) -> int:
    """Return a span as whole nanoseconds."""
    return duration // timedelta(microseconds=1) * 1000


def duration_text(span: timedelta) -> str:
    """Return a duration in its two largest units: 3 h 20 min."""
    rest = max(int(span.total_seconds()), 0)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "less than 1 s"
