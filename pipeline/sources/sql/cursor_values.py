"""Values of a cursor column as offsets, and back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


class CursorKind(StrEnum):
    """Type of the values of a cursor column."""

    INTEGER = "whole number"
    DATE = "date"
    LOCAL = "timestamp"
    ZONED = "timestamp with time zone"


def offset_of(value: object) -> tuple[int, CursorKind]:
    """Return the offset of a row: its number, or its time in µs since the epoch.

    Raises ValueError for a value that cannot be an offset.
    """
    number: int
    if isinstance(value, datetime):
        zoned = value.tzinfo is not None
        local = value.astimezone(UTC).replace(tzinfo=None) if zoned else value
        number, kind = (local - _EPOCH) // _MICROSECOND, CursorKind.ZONED if zoned else CursorKind.LOCAL
    elif isinstance(value, date):
        number, kind = (
            (datetime(value.year, value.month, value.day) - _EPOCH) // _MICROSECOND,
            CursorKind.DATE,
        )
    elif (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, Decimal) and value == value.to_integral_value()
    ):
        number, kind = int(value), CursorKind.INTEGER
    else:
        raise ValueError(
            f"is {type(value).__name__} {value!r}: it must be a whole number, a date or a timestamp"
        )
    if not 0 <= number < 1 << 62:
        raise ValueError(f"is {value}: it must be 0 or above, or a time after 1970")
    return number, kind


def value_of(offset: int, kind: CursorKind) -> int | date | datetime:
    """Return the first value of a kind whose offset is at least ``offset``."""
    if kind is CursorKind.INTEGER:
        return offset
    moment = _EPOCH + offset * _MICROSECOND
    if kind is CursorKind.DATE:
        whole = datetime(moment.year, moment.month, moment.day)
        return (whole if whole == moment else whole + timedelta(days=1)).date()
    return moment.replace(tzinfo=UTC) if kind is CursorKind.ZONED else moment
