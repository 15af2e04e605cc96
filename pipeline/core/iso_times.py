"""Text of times: ISO 8601 in UTC, and local time beside UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from pipeline.core.durations import SECOND_NS


def show_time(ns: int | None) -> str | None:
    """Format nanoseconds as ``2025-01-31T12:00:00Z``; a fraction of zero is left out."""
    if ns is None:
        return None
    seconds, fraction = divmod(ns, SECOND_NS)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else f"{text}Z"


def show_local_time(time: datetime, zone: str) -> str:
    """Return a time in UTC, after that of another time zone if there is one.

    Args:
        time: An aware time in UTC.
        zone: IANA name of the other zone, "" for none.
    """
    local = time.astimezone(ZoneInfo(zone)) if zone else time
    if not local.utcoffset():
        return f"{time:%Y-%m-%d %H:%M:%S} UTC"
    day = "" if local.date() == time.date() else f"{time:%Y-%m-%d} "
    name = local.tzname() or ""
    shown = name if name.isalpha() else f"UTC{name}"  # zones without letters have names such as +03
    return f"{local:%Y-%m-%d %H:%M:%S} {shown} ({day}{time:%H:%M:%S} UTC)"
