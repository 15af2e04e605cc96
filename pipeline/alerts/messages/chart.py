"""Chart of an anomaly: the series, its forecast, and the quantity of which the sentence speaks.

A quantity in the unit of the value is drawn among the values, any other one below them. The usual range is
that of the quantity; the prediction interval is that of the forecast of the value.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import structlog
from numpy.typing import NDArray

from pipeline.alerts.messages.chart_quantity import ChartQuantity, quantity_of
from pipeline.alerts.messages.payload import AnomalyView, Payload, moment
from pipeline.alerts.messages.style import SEVERITY_COLOURS
from pipeline.alerts.messages.text import leading, where
from pipeline.core.durations import SECOND_NS, to_nanoseconds
from pipeline.core.verdict_words import CAUSES_OF_EVENTS, CAUSES_OF_VALUES

log = structlog.get_logger(__name__)

#: Spans that are read until there are enough points: sensors have them in hours, daily prices in a year.
_SPANS_NS = tuple(to_nanoseconds(timedelta(days=d)) for d in (0.25, 2, 14, 400))
MIN_POINTS = 60
#: Multiple of the median from which one value would press all others flat.
LOG_AXIS_TIMES = 20.0
MAX_POINTS = 240
#: Part of the chart by which the usual range is drawn before and after the anomaly, as 1 / n.
RANGE_MARGIN_SHARE = 20
_SPAN_AFTER_NS = to_nanoseconds(timedelta(hours=6))

#: (stream, series, since_ns, until_ns, columns) → table; ``storage.history.reader.HistoryReader.read`` with
#: its arguments in a row.
ReadHistory = Callable[[str, str, int, int, list[str]], Any]


class ChartRenderer:
    """Draws the first anomaly of a payload.

    None if its points are events, are not recorded or cannot be read.
    """

    def __init__(self, read: ReadHistory) -> None:
        self._read = read

    def __call__(self, payload: Payload) -> bytes | None:
        if not payload.data.anomalies or payload.data.anomalies[0].cause in CAUSES_OF_EVENTS:
            return None
        return self.draw(payload.data.stream, payload.data.anomalies[0], payload.data.timezone)

    def draw(self, stream: str, anomaly: AnomalyView, timezone: str = "") -> bytes | None:
        """Return a PNG, 600 pixels wide, with times in ``timezone`` ("": UTC)."""
        try:
            points = self._points(stream, anomaly)
        except (OSError, ValueError, KeyError) as error:
            log.warning("no chart: recorded history cannot be read", stream=stream, error=str(error))
            return None
        if points is None:
            return None
        place = where(anomaly.labels, anomaly.series)
        return _draw(anomaly, points, timezone or "UTC", f"{stream}, {place}: {leading(anomaly).name}")

    def _points(self, stream: str, anomaly: AnomalyView) -> dict[str, NDArray[Any]] | None:
        channel = leading(anomaly).name
        columns = ["flag", *(f"{kind}:{channel}" for kind in ("value", "expected", "lower", "upper"))]
        start, end = (round(moment(t).timestamp() * SECOND_NS) for t in (anomaly.start, anomaly.end))
        for past in _SPANS_NS:
            table = self._read(stream, anomaly.series, start - past, end + _SPAN_AFTER_NS, columns)
            if table.num_rows >= MIN_POINTS:
                break
        if table.num_rows == 0:
            return None
        time = table.column("time").to_numpy()
        # Most of the chart shows the past; the points after the end show whether the anomaly has ended.
        last = min(int(np.searchsorted(time, end, "right")) + MAX_POINTS // 6, len(time))
        first = max(min(last - MAX_POINTS, int(np.searchsorted(time, start)) - MIN_POINTS), 0)
        shown = {name: table.column(name).to_numpy()[first:last] for name in columns}
        return {"time": time[first:last], "flag": shown.pop("flag")} | {
            name.partition(":")[0]: v for name, v in shown.items()
        }


def _draw(anomaly: AnomalyView, points: dict[str, NDArray[Any]], timezone: str, title: str) -> bytes:
    # Figure without pyplot: no global state, so any thread may draw.
    from matplotlib import dates
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    top = leading(anomaly)
    quantity = quantity_of(anomaly, top, points["time"], points["value"].astype(np.float64))
    below = quantity is not None and not quantity.of_values
    figure = Figure(figsize=(6.0, 3.8 if below else 3.0), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot(2, 1, 1) if below else figure.add_subplot()
    figure.suptitle(_literal(title), fontsize=9, x=0.01, ha="left")
    time = points["time"].astype("datetime64[ns]")
    colour = SEVERITY_COLOURS.get(anomaly.severity, "#c4162a")
    begin, end = (
        np.datetime64(moment(t).astimezone(UTC).replace(tzinfo=None)) for t in (anomaly.start, anomaly.end)
    )
    _draw_values(axes, anomaly, points, quantity, (colour, begin, end))
    shown = [axes]
    if quantity is not None and below:
        second: Any = figure.add_subplot(2, 1, 2, sharex=axes)
        second.axvspan(begin, end, color=colour, alpha=0.10, lw=0)
        second.plot(time, quantity.values, color=colour, lw=1.2, label=quantity.label)
        second.hlines(quantity.ends, time[0], time[-1], color=colour, lw=1.2, ls=":", label="its usual limit")
        second.set_ylabel(_literal(quantity.label), fontsize=8)
        axes.tick_params(labelbottom=False)
        shown.append(second)
    _finish(figure, shown, dates, timezone)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _draw_values(
    axes: Any,
    anomaly: AnomalyView,
    points: dict[str, NDArray[Any]],
    quantity: ChartQuantity | None,
    marked: tuple[str, np.datetime64, np.datetime64],
) -> None:
    """Draw the values, their forecast, and the usual range in their unit.

    Args:
        axes: The axes.
        anomaly: The anomaly.
        points: Columns of the chart.
        quantity: The quantity of the anomaly, None for the value.
        marked: Colour, begin and end of the anomaly.
    """
    time, top = points["time"].astype("datetime64[ns]"), leading(anomaly)
    colour, begin, end = marked
    axes.axvspan(begin, end, color=colour, alpha=0.10, lw=0)
    room = (time[-1] - time[0]) // RANGE_MARGIN_SHARE
    begin, end = begin - room, end + room  # the range beside one reading could not be seen
    interval = "prediction interval of the forecast"
    axes.fill_between(
        time, points["lower"], points["upper"], color="#9db8d9", alpha=0.45, lw=0, label=interval
    )
    axes.plot(time, points["expected"], color="#4a7ebb", lw=1, ls="--", label="forecast")
    axes.plot(time, points["value"], color="#333333", lw=1.2, label="observed")
    if quantity is not None and quantity.of_values:
        axes.plot(time, quantity.values, color=colour, lw=1.2, label=quantity.label)
        axes.hlines(quantity.ends, begin, end, color=colour, lw=1.2, ls=":", label=f"usual {quantity.label}")
    elif anomaly.cause in CAUSES_OF_VALUES:
        ends = [end for end in (top.lower, top.upper) if end is not None]
        usual = "limit" if anomaly.cause == "static_limit" else "usual range of the value"
        axes.hlines(ends, begin, end, color=colour, lw=1.2, ls=":", label=usual)
    flagged = points["flag"].astype(bool)
    outside = flagged & _outside(anomaly, points, quantity)
    kept = flagged & ~outside
    axes.plot(time[outside], points["value"][outside], "o", color=colour, ms=3.5, label="outside")
    if kept.any():
        label = "alarm kept open"  # a longer one would leave the picture
        axes.plot(time[kept], points["value"][kept], "o", color=colour, ms=3.5, mfc="none", label=label)
    axes.set_ylabel(_literal(f"{top.name} ({top.unit})" if top.unit else top.name), fontsize=8)
    _limit(axes, points)


def _outside(
    anomaly: AnomalyView, points: dict[str, NDArray[Any]], quantity: ChartQuantity | None
) -> NDArray[np.bool_]:
    """Return the points that lie outside of what the sentence states.

    Where that is no curve of the picture, they are those from the begin to the end of the deviation.
    """
    top = leading(anomaly)
    if quantity is not None and len(quantity.ends) == 2:
        return (quantity.values < min(quantity.ends)) | (quantity.values > max(quantity.ends))
    if quantity is not None and quantity.ends:
        return quantity.values > quantity.ends[0]
    if anomaly.cause in CAUSES_OF_VALUES:
        low, high = (math.nan if end is None else end for end in (top.lower, top.upper))
        return (points["value"] < low) | (points["value"] > high)
    begin, end = (round(moment(t).timestamp() * SECOND_NS) for t in (anomaly.start, anomaly.end))
    return (points["time"] >= begin) & (points["time"] <= end)


def _finish(figure: Any, shown: list[Any], dates: Any, timezone: str) -> None:
    """Draw axes and legends.

    Args:
        figure: The figure.
        shown: Its axes, the one with the times last.
        dates: The module ``matplotlib.dates``.
        timezone: Time zone of the times.
    """
    for axes in shown:
        axes.tick_params(labelsize=8)
        axes.margins(x=0.01)
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(
            fontsize=7,
            frameon=False,
            ncols=3,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            borderaxespad=0.0,
            columnspacing=1.0,
            handlelength=1.6,
        )
    _date_axis(shown[-1], dates, timezone)
    for axes in shown:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    figure.align_ylabels(shown)


def _date_axis(axes: Any, dates: Any, timezone: str) -> None:
    zone = ZoneInfo(timezone)
    locator = dates.AutoDateLocator(minticks=3, maxticks=7, tz=zone)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=zone))
    axes.xaxis.get_offset_text().set_fontsize(8)
    axes.set_xlabel(f"time in {timezone}", fontsize=8, loc="left", labelpad=0)


def _limit(axes: Any, points: dict[str, NDArray[Any]]) -> None:
    """Limit the axis to the values and as much of the interval: a young series has a very wide one."""
    seen = points["value"][np.isfinite(points["value"])]
    band = np.concatenate([points["lower"], points["upper"]])
    band = band[np.isfinite(band)]
    if not len(seen):
        return
    low, high = float(seen.min()), float(seen.max())
    if len(band):
        span = high - low
        low = min(low, max(float(np.quantile(band, 0.05)), low - span))
        high = max(high, min(float(np.quantile(band, 0.95)), high + span))
    least, most, median = float(seen.min()), float(seen.max()), float(np.median(seen))
    if least > 0 and (most > LOG_AXIS_TIMES * median or least < median / LOG_AXIS_TIMES):
        axes.set_yscale("log")  # one number would press all others flat
        axes.set_ylim(least / 1.5, most * 1.5)
        return
    room = 0.06 * (high - low) or abs(high) * 0.06 or 1.0
    axes.set_ylim(low - room, high + room)


def _literal(text: str) -> str:
    """Escape dollar signs, between which matplotlib reads a formula."""
    return text.replace("$", r"\$")
