"""Numeric times that count from another moment than 1970, or in days."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from pipeline.core.durations import SECOND_NS

#: Steps of 100 ns since the year 1 (.NET) or 1601 (Windows), at 1970.
HUNDREDS_AT_EPOCH = {"ticks": 621_355_968_000_000_000, "filetime": 116_444_736_000_000_000}
#: Days at 1970: of spreadsheets (since 1899-12-30), of MATLAB (since the year 0), Julian and modified ones.
DAYS_AT_EPOCH = {"spreadsheet": 25_569.0, "matlab": 719_529.0, "julian": 2_440_587.5, "mjd": 40_587.0}
#: Unit → seconds from 1970 to its first moment.
SECONDS_FROM_EPOCH = {
    "gps": 315_964_800,
    "since_1904": -2_082_844_800,
    "since_2000": 946_684_800,
    "since_2001": 978_307_200,
}
#: Moments (UTC) from which GPS is a further second ahead of UTC.
_LEAP_SECONDS = (
    *((1981, 7), (1982, 7), (1983, 7), (1985, 7), (1988, 1), (1990, 1), (1991, 1), (1992, 7), (1993, 7)),
    *((1994, 7), (1996, 1), (1997, 7), (1999, 1), (2006, 1), (2009, 1), (2012, 7), (2015, 7), (2017, 1)),
)
_LEAPS_AT = np.array([datetime(year, month, 1, tzinfo=UTC).timestamp() for year, month in _LEAP_SECONDS])


def hundreds_since(numbers: NDArray, unit: str) -> NDArray[np.int64]:
    """Convert ticks of 100 ns, (N,) → (N,) ns since 1970.

    Negative where there is no such time.
    """
    since: NDArray[np.int64] = np.asarray(numbers).astype(np.int64) - HUNDREDS_AT_EPOCH[unit]
    return np.where(since < np.iinfo(np.int64).max // 100, since * 100, -1)


def days_since(days: NDArray, unit: str) -> NDArray[np.int64]:
    """Convert days, (N,) → (N,) ns since 1970, to the millisecond.

    −1 where there is no such time.
    """
    since = np.asarray(days, np.float64) - DAYS_AT_EPOCH[unit]
    good = np.isfinite(since) & (since >= 0) & (since < 106_000)
    milliseconds = np.rint(np.where(good, since, 0) * 86_400_000).astype(np.int64)
    return np.where(good, milliseconds * 1_000_000, -1)


def seconds_since(seconds: NDArray, unit: str) -> NDArray[np.int64]:
    """Convert seconds, (N,) → (N,) ns since 1970, to the microsecond.

    −1 where there is no such time.
    """
    since = np.asarray(seconds, np.float64) + SECONDS_FROM_EPOCH[unit]
    if unit == "gps":
        since = since - np.searchsorted(_LEAPS_AT + np.arange(len(_LEAPS_AT)) + 1, since, side="right")
    good = np.isfinite(since) & (since >= 0) & (since < 2**33)
    whole = np.floor(np.where(good, since, 0))
    micro = np.rint((np.where(good, since, 0) - whole) * 1e6).astype(np.int64)
    return np.where(good, whole.astype(np.int64) * SECOND_NS + micro * 1000, -1)
