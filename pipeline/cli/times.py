"""Times on the command line: ISO 8601 or relative in, ISO 8601 in UTC out."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_RELATIVE = re.compile(r"-?((?:\d+(?:\.\d+)?[smhdw])+)(?: ago)?")


def parse_time(text: str) -> int:
    """``2025-01-31``, ``2025-01-31T12:00:00+01:00``, ``-2h``, ``7d`` (both: ago), ``now`` → ns since the
    epoch; a time without a zone is UTC.
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
            f"{text!r} is no time; write 2025-01-31, 2025-01-31T12:00:00Z, or how long ago: 2h, 7d"
        ) from None
    return _ns((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC))


def show_time(ns: int | None) -> str | None:
    """``2025-01-31T12:00:00Z``, with a fraction where there is one."""
    if ns is None:
        return None
    seconds, fraction = divmod(ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else f"{text}Z"


def show_second(ns: int | None) -> str | None:
    """The same for people: whole seconds."""
    return None if ns is None else show_time(ns // 1_000_000_000 * 1_000_000_000)


def _ns(span: timedelta) -> int:
    """Exactly, which ``total_seconds`` is not."""
    return (span // timedelta(microseconds=1)) * 1000
