"""Plot of a frame with its verdicts, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.core.errors import InputError
from pipeline.services.dataframe import to_pandas
from pipeline.services.frame_times import frame_times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MAX_PLOTS = 12


def plot(
    frame: Any,
    verdicts: Any,
    *,
    time: str | None = None,
    values: str | Sequence[str] | None = None,
    series: str | None = None,
) -> Figure:
    """Plot values, expected ranges and alarms, one plot per series and channel.

    Args:
        frame: The rows that ``detect`` read.
        verdicts: The result of ``detect``.
        time: Column of the time. Default: the index.
        values: Columns to plot. Default: those that have an expected value.
        series: Column that names the series. Default: one series.

    Returns:
        A figure of matplotlib, which a notebook shows.

    Raises:
        InputError: a column is missing, or rows and verdicts do not belong together.
    """
    from matplotlib.figure import Figure

    rows, found = to_pandas(frame, "plot")[0], to_pandas(verdicts, "plot")[0]
    if len(rows) != len(found):
        raise InputError(f"plot: {len(rows)} rows and {len(found)} verdicts do not belong together")
    names = _channels(rows, found, values)
    if missing := [name for name in (*names, time, series) if name is not None and name not in rows]:
        raise InputError(f"plot: the frame has no column {', '.join(missing)}")
    when = np.asarray(frame_times(rows[time], "plot", time) if time is not None else rows.index)
    _require_verdicts(found, names)
    groups = [("", np.arange(len(rows)))]
    if series is not None:
        places = rows.reset_index(drop=True).groupby(series, sort=True).indices
        groups = [(str(name), np.asarray(at)) for name, at in places.items()]
    parts = [(label, at, name) for label, at in groups for name in names][:MAX_PLOTS]
    figure = Figure(figsize=(10, 2.6 * len(parts)), layout="constrained")
    axes = figure.subplots(len(parts), 1, squeeze=False)[:, 0]
    for axis, (label, at, name) in zip(axes, parts, strict=True):
        _draw(
            axis, when, rows[name].to_numpy(), _columns(found, name), at[np.argsort(when[at], kind="stable")]
        )
        axis.set_title(f"{label} {name}".strip(), loc="left")
    return figure


def _columns(found: pd.DataFrame, name: str) -> list[NDArray[Any]]:
    """Return lower, upper, expected and flag of a channel."""
    numbers = [found[column].to_numpy(np.float64) for column in _band_columns(found, name)]
    return [*numbers, found["flag"].to_numpy(np.bool_)]


def _require_verdicts(found: pd.DataFrame, names: list[str]) -> None:
    """Raise InputError if a frame is no result of ``detect`` for some channels."""
    needed = ["flag", *(column for name in names for column in _band_columns(found, name))]
    if lacking := [column for column in needed if column not in found]:
        raise InputError(
            f"plot: the second argument is no result of detect(): it has no column {', '.join(lacking)}. "
            "Write plot(frame, detect(frame, …))"
        )


def _band_columns(found: pd.DataFrame, name: str) -> list[str]:
    """Return the columns of lower, upper and expected of a channel."""
    suffix = "" if "expected" in found else f":{name}"
    return [f"{one}{suffix}" for one in ("lower", "upper", "expected")]


def _draw(
    axis: Axes, when: NDArray[Any], values: NDArray[Any], columns: list[NDArray[Any]], rows: NDArray[Any]
) -> None:
    """Draw some rows of one channel."""
    low, high, middle, flag = (column[rows] for column in columns)
    value, when = values[rows], when[rows]
    known = np.isfinite(low) & np.isfinite(high)
    axis.fill_between(when, low, high, where=known, color="tab:blue", alpha=0.15, label="expected range")
    axis.plot(when, middle, color="tab:blue", linewidth=0.7, label="expected")
    axis.plot(when, value, color="black", linewidth=0.9, label="observed")
    axis.scatter(when[flag], value[flag], color="tab:red", s=24, zorder=3, label="alarm")
    shown = value[np.isfinite(value)]
    if len(shown):
        margin = 0.1 * float(np.ptp(shown)) or 1.0
        axis.set_ylim(shown.min() - margin, shown.max() + margin)
    axis.legend(loc="upper left", fontsize="small", ncols=4)


def _channels(rows: pd.DataFrame, found: pd.DataFrame, values: str | Sequence[str] | None) -> list[str]:
    """Return the columns to plot."""
    if values is not None:
        return [values] if isinstance(values, str) else list(values)
    named = [str(column).partition(":")[2] for column in found if str(column).startswith("expected:")]
    if named:
        return named
    numbers = [str(column) for column in rows.select_dtypes("number").columns]
    if len(numbers) != 1:
        raise InputError(f"plot: name the column to plot with values=; numbers are {', '.join(numbers)}")
    return numbers
