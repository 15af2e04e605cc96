"""Conversion of columns of event times to int64 ns since the epoch.

Inputs are epochs in four units, and ISO 8601 with and without a time zone. A valid time is ≥ 0. A negative
number marks an invalid one: ``UNREADABLE`` (not a time), ``ABSURD`` (before 1970 or after 2199, mostly a
wrong unit or a clock that was never set) or ``IMPLAUSIBLE`` (a number of an unknown unit that no unit makes a
time after 1990). A number whose digits are a date, such as 20260105, is that date.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core.durations import SECOND_NS
from pipeline.core.time_origins import (
    DAYS_AT_EPOCH,
    HUNDREDS_AT_EPOCH,
    SECONDS_FROM_EPOCH,
    days_since,
    hundreds_since,
    seconds_since,
)
from pipeline.core.time_spellings import read_format, read_spelling

UNREADABLE = np.iinfo(np.int64).min
ABSURD = UNREADABLE + 1
IMPLAUSIBLE = UNREADABLE + 2
#: 2200-01-01, the first time that is too late.
END_NS = 7_258_118_400 * SECOND_NS

#: 1990-01-01. A number of seconds before it is rather a date, a serial day or a stopwatch.
PLAUSIBLE_NS = 631_152_000 * SECOND_NS
#: Numbers of digits of a compact date: to the day, the minute, the second and the millisecond.
_COMPACT_DIGITS = (8, 12, 14, 17)
#: Ticks of .NET of the years 1997 to 2060: rather these than nanoseconds of the first months of 1990.
_TICKS_OF_NOW = (630 * 10**15, 650 * 10**15)
_DAY_NS = 86_400 * SECOND_NS

SCALES = {"s": SECOND_NS, "ms": 1_000_000, "us": 1000, "ns": 1}
# Seconds reach 1e10 in 2286, milliseconds are below 1e10 only until April 1970: so the size of a number tells
# its unit.
_BOUNDS = np.array([10**10, 10**13, 10**16])
_AUTO_SCALES = np.array([SECOND_NS, 1_000_000, 1000, 1])

_EPOCH = datetime(1970, 1, 1)
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(?:[.,][0-9]{0,30})?(?:[eE]\+?[0-9]{1,2})?")
_MAX_ISO_CHARACTERS = 64
_FRACTION = re.compile(r"([T ]\d\d:\d\d:\d\d|[T ]\d{6})[.,](\d+)")


def parse_times(
    times: Sequence[int | float | str | None], unit: str, zone: str, form: str | None = None
) -> NDArray[np.int64]:
    """Convert a JSON column, (N,) of any types → (N,) ns, negative where invalid.

    Args:
        times: The column; what is neither number nor text (None, true) is unreadable.
        unit: auto, s, ms, us, ns, iso, or one of ``pipeline.core.time_origins``.
        zone: Time zone of times without one.
        form: Format of texts, as ``strptime`` has it; None for the common spellings.
    """
    if form is not None:
        return parse_format([str(time) for time in times], form, zone)
    kinds = set(map(type, times))
    if kinds <= {int}:
        return parse_epochs(_integers(times), unit, zone)
    if kinds == {float}:
        return parse_epochs(np.array(times, np.float64), unit, zone)
    if kinds == {str}:
        return parse_texts(pa.array(times, pa.string()), unit, zone)
    out = np.full(len(times), UNREADABLE)
    for kind in kinds & {int, float, str}:
        rows = [i for i, t in enumerate(times) if type(t) is kind]
        out[rows] = parse_times([times[i] for i in rows], unit, zone)
    return out


def _integers(numbers: Sequence[Any]) -> NDArray[np.int64]:
    try:
        return np.array(numbers, np.int64)
    except OverflowError:  # of any size in JSON; those that do not fit are absurd in every unit
        return np.array([min(max(int(n), -1), END_NS) for n in numbers], np.int64)


def parse_format(texts: Sequence[str], form: str, zone: str) -> NDArray[np.int64]:
    """Convert texts by a format of ``strptime``, (N,) → (N,) ns."""
    known: dict[str, tuple[int, bool]] = {}
    for text in set(texts):
        moment = read_format(text.strip(), form)
        known[text] = (UNREADABLE, True) if moment is None else _since_epoch(moment)
    out = np.array([known[text][0] for text in texts], np.int64)
    naive = np.array([not known[text][1] for text in texts], bool)
    out[naive] = localise(out[naive], zone)
    return out


def parse_epochs(
    numbers: NDArray[np.int64] | NDArray[np.float64], unit: str, zone: str = "UTC"
) -> NDArray[np.int64]:
    """Convert epochs, (N,) integers or floats → (N,) ns.

    The unit ``auto`` (and iso) is derived from the size of each number; digits of a date are that date in
    ``zone``. Fractions are kept to the microsecond, which is the precision of a double for the present time
    in seconds. Days of ``spreadsheet`` and ``matlab`` are in ``zone``.
    """
    if unit in DAYS_AT_EPOCH:
        days = _possible(days_since(numbers, unit))
        return localise(days, zone) if unit in ("spreadsheet", "matlab") else days
    if unit in HUNDREDS_AT_EPOCH:
        return _possible(hundreds_since(numbers, unit))
    if unit in SECONDS_FROM_EPOCH:
        return _possible(seconds_since(numbers, unit))
    out = _by_size(numbers, unit)
    if unit in SCALES:
        return out
    early = (out < PLAUSIBLE_NS) | ((numbers >= _TICKS_OF_NOW[0]) & (numbers < _TICKS_OF_NOW[1]))
    if not early.any():
        return out
    rows = np.flatnonzero(early & (out >= 0))
    out = np.array(out)
    out[rows] = [_compact_or_implausible(number, zone) for number in numbers[rows].tolist()]
    return out


def _compact_or_implausible(number: float, zone: str) -> int:
    """Return the time of digits that are a date, otherwise IMPLAUSIBLE."""
    digits = str(int(number))
    if number != int(number) or len(digits) not in _COMPACT_DIGITS:
        return IMPLAUSIBLE
    spelled = read_spelling(digits)
    ns = IMPLAUSIBLE if spelled is None else _since_epoch(spelled.moment)[0]
    return IMPLAUSIBLE if ns < 0 else int(localise(np.array([ns]), zone)[0])


def _possible(ns: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where((ns >= 0) & (ns < END_NS), ns, ABSURD)


def _since_epoch(moment: datetime) -> tuple[int, bool]:
    """Return (ns, has a time zone); ABSURD out of bounds."""
    aware = moment.tzinfo is not None
    try:
        local = moment.astimezone(UTC).replace(tzinfo=None) if aware else moment
    except OverflowError:
        return ABSURD, True
    ns = (local - _EPOCH) // timedelta(microseconds=1) * 1000
    return (ns if 0 <= ns < END_NS else ABSURD), aware


def _by_size(numbers: NDArray[np.int64] | NDArray[np.float64], unit: str) -> NDArray[np.int64]:
    if numbers.dtype.kind == "f":
        finite = np.isfinite(numbers)
        clean = np.where(finite, np.clip(numbers, -1.0, 2.0**62), -1.0)
        whole = np.floor(clean)
        scale = _scale(whole, unit)
        grain = np.minimum(scale, 1000)
        fraction = np.rint((clean - whole) * (scale // grain)).astype(np.int64) * grain
        out = _scaled(whole.astype(np.int64), scale, fraction)
        out[~finite] = UNREADABLE
        return out
    return _scaled(numbers.astype(np.int64, copy=False), _scale(numbers, unit), 0)


def _scale(numbers: NDArray, unit: str) -> NDArray[np.int64]:
    if unit in SCALES:
        return np.array(SCALES[unit])
    if len(numbers):
        low, high = np.searchsorted(_BOUNDS, [numbers.min(), numbers.max()], side="right")
        if low == high:
            return _AUTO_SCALES[low]
    return _AUTO_SCALES[np.searchsorted(_BOUNDS, numbers, side="right")]


def _scaled(
    whole: NDArray[np.int64], scale: NDArray[np.int64], fraction: NDArray[np.int64] | int
) -> NDArray[np.int64]:
    good = (whole >= 0) & (whole < END_NS // scale)
    if good.all():
        return np.asarray(whole * scale + fraction)
    return np.where(good, np.where(good, whole, 0) * scale + fraction, ABSURD)


def parse_texts(texts: pa.Array, unit: str, zone: str) -> NDArray[np.int64]:
    """Convert texts, (N,) Arrow strings without nulls → (N,) ns.

    They are ISO 8601, or epochs written as text unless ``unit`` is iso.
    """
    if unit != "iso" and (numbers := _number_texts(texts)) is not None:
        return parse_epochs(numbers, unit, zone)
    if unit in SCALES:
        return _mixed(texts, unit, zone)
    try:
        return _bounded(texts.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy())
    except pa.ArrowInvalid:
        pass
    try:
        return localise(_bounded(texts.cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy()), zone)
    except pa.ArrowInvalid:
        return _mixed(texts, unit, zone)


def _number_texts(texts: pa.Array) -> NDArray | None:
    """Return the numbers if all texts are integers or all are decimals, otherwise None."""
    try:
        if pc.all(pc.ascii_is_decimal(texts)).as_py():
            return texts.cast(pa.int64()).to_numpy()
        if pc.all(pc.match_substring_regex(texts, r"^[+-]?[0-9]{1,30}\.[0-9]{0,30}$")).as_py():
            return texts.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:  # more digits than an int64 has
        pass
    return None


def _bounded(ns: NDArray[np.int64]) -> NDArray[np.int64]:
    good = (ns >= 0) & (ns < END_NS)
    return ns if good.all() else np.where(good | (ns == UNREADABLE), ns, ABSURD)


def localise(local: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    """Convert wall-clock times of ``zone``, (N,) ns → UTC; negative ones are not changed.

    A time that occurs twice when clocks go back is the first one. A time that is skipped when clocks go
    forward becomes the time of the change.
    """
    if zone == "UTC":
        return local
    import pandas as pd  # a second to import, for streams in local time only

    good = local >= 0
    index = pd.DatetimeIndex(local[good].view("datetime64[ns]"))
    there = index.tz_localize(
        ZoneInfo(zone), ambiguous=np.ones(len(index), bool), nonexistent="shift_forward"
    )
    out = local.copy()
    out[good] = _bounded(there.asi8)
    return out


def repeated_hours(zone: str, times: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the spans (ns) in which local times are read the first of two times.

    They are those of the years of ``times``.
    """
    if zone == "UTC" or not len(times):
        return []
    years = [_EPOCH.year + int(ns // (365.2425 * _DAY_NS)) for ns in (times.min(), times.max())]
    return [span for year in range(years[0] - 1, years[1] + 2) for span in _repeated_in(zone, year)]


@lru_cache(maxsize=1024)
def _repeated_in(zone: str, year: int) -> tuple[tuple[int, int], ...]:
    """Return the spans before the clocks of a zone go back in a year."""
    there, hour, found = ZoneInfo(zone), timedelta(minutes=30), []
    moment = datetime(year, 1, 1, tzinfo=UTC)
    offset = moment.astimezone(there).utcoffset()
    while moment.year == year:
        moment += hour
        now = moment.astimezone(there).utcoffset()
        if now is not None and offset is not None and now < offset:
            end = (moment.replace(tzinfo=None) - _EPOCH) // timedelta(microseconds=1) * 1000
            found.append((end - (offset - now) // timedelta(microseconds=1) * 1000, end))
        offset = now
    return tuple(found)


def _mixed(texts: pa.Array, unit: str, zone: str) -> NDArray[np.int64]:
    """Convert texts one by one.

    This covers numbers and the forms of ISO 8601 that Arrow does not read (basic, week dates, commas, mixed
    zones).
    """
    out = np.full(len(texts), UNREADABLE)
    naive: list[int] = []
    for i, text in enumerate(pc.utf8_trim_whitespace(texts).to_pylist()):
        if unit != "iso" and _NUMBER.fullmatch(text):
            number = int(text) if text.lstrip("+-").isdigit() else float(text.replace(",", "."))
            out[i] = parse_times([number], unit, zone)[0]
        elif unit not in SCALES and (parsed := _iso(text)) is not None:
            out[i] = parsed[0]
            if not parsed[1]:
                naive.append(i)
        elif unit not in SCALES and (spelled := read_spelling(text)) is not None:
            ns = _since_epoch(spelled.moment)[0]
            out[i] = ns + spelled.nanoseconds if ns >= 0 else ns
            if not spelled.aware:
                naive.append(i)
    out[naive] = localise(out[naive], zone)
    return out


def _iso(text: str) -> tuple[int, bool] | None:
    """Parse an ISO 8601 text: (ns, has a time zone), None if it is not one.

    Digits below 1 ns are dropped.
    """
    if len(text) > _MAX_ISO_CHARACTERS:
        return None
    fraction = 0
    if match := _FRACTION.search(text):
        fraction = int(match[2][:9].ljust(9, "0"))
        text = text[: match.end(1)] + text[match.end() :]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    ns, aware = _since_epoch(moment)
    return (ns + fraction if ns >= 0 else ns), aware


def parse_column(column: pa.Array, unit: str, zone: str, form: str | None = None) -> NDArray[np.int64]:
    """Convert an Arrow column of any type, (N,) → (N,) ns; a null becomes 1970.

    Args:
        column: The column.
        unit: auto, s, ms, us, ns, iso, or one of ``pipeline.core.time_origins``.
        zone: Time zone of times without one.
        form: Format of texts, as ``strptime`` has it; None for the common spellings.
    """
    kind = column.type
    if form is not None:
        return parse_format(column.cast(pa.string()).fill_null("").to_pylist(), form, zone)
    if pa.types.is_integer(kind) and unit == "iso":
        kind, column = pa.string(), column.cast(pa.string())  # 20240131
    if pa.types.is_string(kind):
        return parse_texts(column.fill_null("1970-01-01T00:00:00Z"), unit, zone)
    if pa.types.is_date(kind):
        kind, column = pa.timestamp("s"), column.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(kind):
        ns = parse_epochs(_plain(column, pa.int64()), kind.unit)
        return ns if kind.tz else localise(ns, zone)
    floats = pa.types.is_floating(kind)
    if pa.types.is_integer(kind) or floats:
        return parse_epochs(_plain(column, pa.float64() if floats else pa.int64()), unit, zone)
    return np.full(len(column), UNREADABLE)


def _plain(column: pa.Array, kind: pa.DataType) -> NDArray:
    return column.cast(kind, safe=False).fill_null(0).to_numpy(zero_copy_only=False)
