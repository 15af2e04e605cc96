"""Event times of the rows of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.core.timestamps import parse_epochs, parse_times


def frame_times(column: Any, function: str, name: str | None) -> pd.DatetimeIndex:
    """Return the times of a column or index in UTC; a missing time is NaT.

    The size of a number tells its unit, as in the daemon: pandas would take every number for nanoseconds.

    Args:
        column: The column or index.
        function: Name of the public function, for messages.
        name: Name of the column, None for the index.

    Raises:
        InputError: A value is no time, or a number that no unit makes a time after 1990.
    """
    where = f"{function}: " + ("the index" if name is None else f"column {name}")
    try:
        if pd.api.types.is_numeric_dtype(column):
            return _of_numbers(column, where, name)
        texts = pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)
        if texts and any(map(_is_number, given := list(column))):
            return _of_mixed(given, where, name)
        return pd.DatetimeIndex(pd.to_datetime(column, utc=True))
    except (ValueError, TypeError) as error:
        raise InputError(f"{where} cannot be read as time: {error}") from None


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().isdecimal()
    return isinstance(value, int | float | np.integer | np.floating) and value == value


def _of_numbers(column: Any, where: str, name: str | None) -> pd.DatetimeIndex:
    """Convert a column of a numeric type."""
    there = ~np.asarray(pd.isna(column), np.bool_)
    numbers = np.asarray(column[there])
    if numbers.dtype == object:  # a type of pandas that has missing values
        numbers = np.asarray(numbers.tolist())
    if numbers.dtype.kind not in "iuf":
        raise InputError(f"{where} holds {numbers.dtype}, not times")
    floats = numbers.dtype.kind == "f"
    ns = parse_epochs(numbers.astype(np.float64) if floats else numbers.astype(np.int64), "auto")
    return _checked(there, ns, numbers.tolist(), where, name)


def _of_mixed(given: Sequence[Any], where: str, name: str | None) -> pd.DatetimeIndex:
    """Convert Python objects with numbers among them."""
    there = np.array([not pd.isna(value) for value in given], np.bool_)
    values = [_plain(value) for value, known in zip(given, there.tolist(), strict=True) if known]
    return _checked(there, parse_times(values, "auto", "UTC"), values, where, name)


def _plain(value: Any) -> int | float | str:
    """Return a number as one of Python, anything else as text."""
    if isinstance(value, np.integer | np.floating):
        return value.item()  # type: ignore[no-any-return]
    return value if type(value) in (int, float) else str(value)


def _checked(
    there: NDArray[np.bool_], ns: NDArray[np.int64], values: Sequence[Any], where: str, name: str | None
) -> pd.DatetimeIndex:
    """Return the times, NaT where there is none. Raises InputError."""
    if (bad := np.flatnonzero(ns < 0)).size:
        column = "frame.index" if name is None else f"frame[{name!r}]"
        raise InputError(
            f"{where} holds {values[bad[0]]!r}, which is no epoch after 1990 in s, ms, µs or ns; convert "
            f"it with pandas.to_datetime({column}, unit=...)"
        )
    times = np.full(len(there), np.datetime64("NaT"), "datetime64[ns]")
    times[there] = ns.view("datetime64[ns]")
    return pd.DatetimeIndex(times, tz="UTC")
