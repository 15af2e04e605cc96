"""Times of line protocol in another unit than the stream reads."""

from __future__ import annotations

import re

#: Units of the parameter ``precision`` of InfluxDB 1, 2 and 3, ns.
UNITS_NS = {
    "n": 1,
    "ns": 1,
    "nanosecond": 1,
    "u": 10**3,
    "us": 10**3,
    "microsecond": 10**3,
    "ms": 10**6,
    "millisecond": 10**6,
    "s": 10**9,
    "second": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
#: Time at the end of a line; a line without one ends in a field, which is no whole number alone.
_TIME = re.compile(rb" (-?[0-9]+)(?= *\r?$)", re.MULTILINE)


def factor_between(given: str, read: str) -> int | None:
    """Return the number of units ``read`` in one of ``given``.

    None if it is no whole number.
    """
    whole, rest = divmod(UNITS_NS.get(given, 0), UNITS_NS[read])
    return whole if whole and not rest else None


def multiply_times(lines: bytes, factor: int) -> bytes:
    """Return lines with their times multiplied."""
    return _TIME.sub(lambda time: b" %d" % (int(time[1]) * factor), lines)
