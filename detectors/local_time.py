"""Local time and public holidays, without a call per row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

FIRST_YEAR, LAST_YEAR = 1970, 2060
SECOND_NS = 1_000_000_000
#: Zones whose clock changes are considered where the zone of a series is not known: a plant that lives by
#: local time and reports in UTC shifts by an hour at one of them.
ZONES_OF_UNKNOWN = ("Europe/Berlin", "America/New_York")


@lru_cache(maxsize=64)
def zone_changes(zone: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return times (T,) and offsets (T,) in ns: from each time on, ``zone`` has this offset from UTC.

    The first time lies before ``FIRST_YEAR``. Changes are found to the second.
    """
    info = ZoneInfo(zone)
    moment, end = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(LAST_YEAR, 1, 1, tzinfo=UTC)
    offset = _offset(info, moment)
    times, offsets = [np.iinfo(np.int64).min], [offset]
    while moment < end:
        later = moment + timedelta(days=7)
        if _offset(info, later) != offset:
            low, high = int(moment.timestamp()), int(later.timestamp())
            while high - low > 1:
                middle = (low + high) // 2
                same = _offset(info, datetime.fromtimestamp(middle, UTC)) == offset
                low, high = (middle, high) if same else (low, middle)
            later = datetime.fromtimestamp(high, UTC)
            offset = _offset(info, later)
            times.append(high * SECOND_NS)
            offsets.append(offset)
        moment = later
    return np.array(times, np.int64), np.array(offsets, np.int64)


def _offset(info: ZoneInfo, moment: datetime) -> int:
    offset = moment.astimezone(info).utcoffset()
    assert offset is not None  # a ZoneInfo knows its offset at every time
    return int(offset.total_seconds()) * SECOND_NS


def local_ns(zone: str, time: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the local wall-clock time (N,) of ``time`` (N,), both in ns since the epoch."""
    if zone in ("", "UTC"):
        return time
    times, offsets = zone_changes(zone)
    return time + offsets[np.searchsorted(times, time, side="right") - 1]


@lru_cache(maxsize=16)
def holiday_days(country: str) -> NDArray[np.int64]:
    """Return the public holidays (D,) of a country, in order; none for "".

    They are days since 1970-01-01.
    ``country`` is a code of ISO 3166 such as DE, with a part of the country behind a hyphen (DE-BY). Raises
    ValueError for an unknown one.
    """
    if not country:
        return np.zeros(0, np.int64)
    import holidays  # few streams have them

    code, _, part = country.partition("-")
    try:
        found = holidays.country_holidays(code, subdiv=part or None, years=range(FIRST_YEAR, LAST_YEAR))
    except NotImplementedError as error:
        raise ValueError(str(error)) from None
    return np.array(sorted(found), "datetime64[D]").astype(np.int64)


def possible_clock_changes(zone: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return times (T,) in ns at which the clock of an unknown zone may change, and the direction (T,).

    1: clocks go forward by an hour; −1: back. Empty where the zone is known.
    """
    if zone not in ("", "UTC"):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    found = []
    for name in ZONES_OF_UNKNOWN:
        times, offsets = zone_changes(name)
        found += list(zip(times[1:].tolist(), np.sign(np.diff(offsets)).tolist(), strict=True))
    found.sort()
    return np.array([t for t, _ in found], np.int64), np.array([s for _, s in found], np.int64)
