"""Times on the command line: read as ISO 8601 or as an age, printed as ISO 8601 in UTC."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import typer

from pipeline.core.iso_times import show_time

__all__ = ["parse_span", "parse_time", "show_second", "show_time"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_RELATIVE = re.compile(r"-?((?:\d+(?:\.\d+)?[smhdw])+)(?: ago)?")


def parse_time(text: str) -> int:
    """Return a time in nanoseconds since the epoch; without a zone it is UTC.

    Forms: ``2025-01-31``, ``2025-01-31T12:00:00+01:00``, ``now``, and ages such as ``2h``, ``-2h`` and ``7d``.
    """
    if text == "now":
        return time.time_ns()
    if relative := _RELATIVE.fullmatch(text.strip()):
        parts = re.findall(r"([\d.]+)([smhdw])", relative[1])
        return time.time_ns() - _ns(
            sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
        )
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a time; write 2025-01-31, 2025-01-31T12:00:00Z, or an age such as 2h or 7d"
        ) from None
    return _ns((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC))


def parse_span(text: Any) -> timedelta:
    """Return the length of a time such as ``36h`` or ``14d``."""
    from pipeline.config.field_types import parse_duration

    try:
        span: timedelta = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}") from None
    if not span:
        raise typer.BadParameter(f"{text!r}: the span is empty")
    return span


def show_second(ns: int | None) -> str | None:
    """Format nanoseconds as ISO 8601 in whole seconds."""
    return None if ns is None else show_time(ns // 1_000_000_000 * 1_000_000_000)


def _ns(span: timedelta) -> int:
    """Convert without the rounding error of ``total_seconds``."""
    return (span // timedelta(microseconds=1)) * 1000
