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


def known_zone(name: str) -> str:
    """Return the name of a time zone unchanged.

    Raises:
        ValueError: There is no such zone.
    """
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ValueError(
            f"there is no time zone {name!r}: write a name such as UTC or Europe/Berlin"
        ) from None
    return name


def show_clock_time(ns: int, zone: str) -> str:
    """Return the time of day of ``ns`` in a time zone, as 12:30 CET.

    The zone "" is UTC. Seconds are left out where they are 0.
    """
    time = datetime.fromtimestamp(ns // SECOND_NS, UTC)
    local = time.astimezone(ZoneInfo(zone)) if zone else time
    seconds = f":{local:%S}" if local.second else ""
    return f"{local:%H:%M}{seconds} {_zone_name(local)}"


def show_day_and_clock_time(ns: int, zone: str) -> str:
    """Return a time as ``show_clock_time`` does, with its day: 2026-03-24 12:30 CET."""
    time = datetime.fromtimestamp(ns // SECOND_NS, UTC)
    local = time.astimezone(ZoneInfo(zone)) if zone else time
    return f"{local:%Y-%m-%d} {show_clock_time(ns, zone)}"


def _zone_name(local: datetime) -> str:
    name = local.tzname() or ""
    return name if name.isalpha() else f"UTC{name}"  # zones without letters have names such as +03


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
    return f"{local:%Y-%m-%d %H:%M:%S} {_zone_name(local)} ({day}{time:%H:%M:%S} UTC)"


def show_local_span(began: datetime, ended: datetime, zone: str) -> str:
    """Return two times as ``show_local_time`` does, with what they share once.

    Args:
        began: An aware time in UTC.
        ended: A later one.
        zone: IANA name of the other zone, "" for none.
    """
    first, last = (time.astimezone(ZoneInfo(zone)) if zone else time for time in (began, ended))
    same_zone = _zone_name(first) == _zone_name(last)
    if not same_zone or first.date() != last.date() or (first.utcoffset() and began.date() != ended.date()):
        return f"{show_local_time(began, zone)} to {show_local_time(ended, zone)}"
    if not first.utcoffset():
        return f"{began:%Y-%m-%d %H:%M:%S} to {ended:%H:%M:%S} UTC"
    day = "" if first.date() == began.date() else f"{began:%Y-%m-%d} "
    utc = f"{day}{began:%H:%M:%S} to {ended:%H:%M:%S} UTC"
    return f"{first:%Y-%m-%d %H:%M:%S} to {last:%H:%M:%S} {_zone_name(first)} ({utc})"
