"""Axes of a picture: limits of the values, times, legends."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from pipeline.alerts.messages.chart_quantity import ChartQuantity
from pipeline.core.data_units import data_unit
from pipeline.core.shown_numbers import shown_texts

#: Multiple of the median from which one value would press all others flat.
LOG_AXIS_TIMES = 20.0
#: Growth of an axis by the ends of a usual range, in heights of the values.
MAX_STRETCH = 2.5
MAX_LEGEND_PIXELS = 470
Values = NDArray[np.float64]


def limit(axes: Any, points: dict[str, NDArray[Any]], quantity: ChartQuantity | None) -> None:
    """Limit the axis to the values, as much of the interval, and the usual range.

    A young series has a very wide interval. An end that would press the values flat is left out.

    Args:
        axes: The axes.
        points: Columns of the picture.
        quantity: The quantity of the anomaly.
    """
    curves, ends = [points["value"].astype(np.float64)], np.zeros(0)
    if quantity is not None and quantity.of_values:
        curves.append(quantity.values)
        ends = np.array([end for end in quantity.ends if isinstance(end, float)])
    if quantity is not None and quantity.implied is not None:
        curves.append(quantity.implied)
    seen = np.concatenate(curves)
    seen = seen[np.isfinite(seen)]
    if not len(seen):
        return
    if _set_logarithmic(axes, seen, ends, float(np.nanmedian(curves[0]))):
        return
    low, high = _with_interval(float(seen.min()), float(seen.max()), points)
    for end in ends.tolist():
        if max(high, end) - min(low, end) <= MAX_STRETCH * (high - low):
            low, high = min(low, end), max(high, end)
    room = 0.06 * (high - low) or abs(high) * 0.06 or 1.0
    axes.set_ylim(low - room, high + room)


def _set_logarithmic(axes: Any, seen: Values, ends: Values, median: float) -> bool:
    """Make the axis logarithmic where one number would press all others flat.

    Args:
        axes: The axes.
        seen: Finite values.
        ends: Ends of the usual range.
        median: Median of the values.
    """
    least, most = float(seen.min()), float(seen.max())
    if median <= 0 or least < 0:
        return False
    small = ends[(ends > 0) & (ends < median / LOG_AXIS_TIMES)]
    if least > 0 and (most > LOG_AXIS_TIMES * median or least < median / LOG_AXIS_TIMES):
        near = ends[(ends >= least / LOG_AXIS_TIMES) & (ends <= most * LOG_AXIS_TIMES)]
        axes.set_yscale("log")
        axes.set_ylim(min([least, *near]) / 1.5, max([most, *near]) * 1.5)
        return True
    if least == 0 and len(small):
        axes.set_yscale("symlog", linthresh=float(small.min()) / 10)
        axes.set_ylim(-float(small.min()) / 30, most * 1.5)
        return True
    return False


def _with_interval(low: float, high: float, points: dict[str, NDArray[Any]]) -> tuple[float, float]:
    """Return limits, widened by the prediction interval to three times at most."""
    band = np.concatenate([points["lower"], points["upper"]])
    band = band[np.isfinite(band)]
    if not len(band):
        return low, high
    span = high - low
    least = min(low, max(float(np.quantile(band, 0.05)), low - span))
    return least, max(high, min(float(np.quantile(band, 0.95)), high + span))


def range_label(axes: Any, quantity: ChartQuantity, unit: str | None) -> str:
    """Return the label of a usual range, with an end that the axis leaves out.

    Args:
        axes: The axes, with their last limits.
        quantity: The quantity.
        unit: Unit of the values.
    """
    bottom, top = axes.get_ylim()
    out = []
    for word, end in (("low", quantity.low), ("high", quantity.high)):
        if isinstance(end, float) and not bottom <= end <= top:
            prefixed, factor = data_unit(unit, end)
            prefix = f" {prefixed}" if factor != 1 else ""
            out.append(f"{word} end {shown_texts(end * factor)[0]}{prefix}")
    return f"{quantity.usual} ({', '.join(out)} not in view)" if out else quantity.usual


def finish(figure: Any, shown: list[Any], unit: str | None, timezone: str, label_points: float) -> None:
    """Draw axes and legends.

    Args:
        figure: The figure.
        shown: Its axes, that of the values first and the one with the times last.
        unit: Unit of the values.
        timezone: Time zone of the times.
        label_points: Height of the labels above the first axes.
    """
    from matplotlib import dates
    from matplotlib.transforms import ScaledTranslation

    for axes, points in zip(shown, (label_points, 0.0), strict=False):
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        above = axes.transAxes + ScaledTranslation(0, points / 72, figure.dpi_scale_trans)
        if _legend(axes, above, 3).get_window_extent(figure.canvas.get_renderer()).width > MAX_LEGEND_PIXELS:
            _legend(axes, above, 2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    shown[0].yaxis.set_major_formatter(lambda value, _: _tick(value, unit))
    _date_axis(shown[-1], dates, timezone)
    figure.align_ylabels(shown)


def _tick(value: float, unit: str | None) -> str:
    """Return a value of an axis, with a unit where that has a prefix."""
    prefixed, factor = data_unit(unit, value)
    return f"{value * factor:,.10g}{f' {prefixed}' if factor != 1 else ''}"


def _legend(axes: Any, transform: Any, columns: int) -> Any:
    """Draw a legend in columns, with its lower left corner at (0, 1) of a transform."""
    return axes.legend(
        fontsize=7,
        frameon=False,
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        bbox_transform=transform,
        borderaxespad=0.0,
        columnspacing=1.0,
        handlelength=1.6,
    )


def _date_axis(axes: Any, dates: Any, timezone: str) -> None:
    zone = ZoneInfo(timezone)
    locator = dates.AutoDateLocator(minticks=3, maxticks=7, tz=zone)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=zone))
    axes.xaxis.get_offset_text().set_fontsize(8)
    axes.set_xlabel(f"time in {timezone}", fontsize=8, loc="left", labelpad=0)
