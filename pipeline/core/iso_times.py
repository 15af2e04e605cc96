"""Text of times: ISO 8601 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.core.durations import SECOND_NS


def show_time(ns: int | None) -> str | None:
    """Format nanoseconds as ``2025-01-31T12:00:00Z``; a fraction of zero is left out."""
    if ns is None:
        return None
    seconds, fraction = divmod(ns, SECOND_NS)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else f"{text}Z"
