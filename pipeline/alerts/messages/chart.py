"""Picture of an anomaly: the series, its forecast, and the told quantity.

A quantity in the unit of the value is drawn among the values, any other one below them. The usual range is
that of the quantity; the prediction interval is that of the forecast of the value.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from numpy.typing import NDArray

from pipeline.alerts.messages.chart_axes import finish, limit, range_label
from pipeline.alerts.messages.chart_marks import draw_marks, utc
from pipeline.alerts.messages.chart_quantity import ChartQuantity, quantity_of
from pipeline.alerts.messages.payload import AnomalyView, Payload, moment
from pipeline.alerts.messages.style import SEVERITY_COLOURS
from pipeline.alerts.messages.text import clean, leading, where
from pipeline.core.durations import SECOND_NS, to_nanoseconds
from pipeline.core.iso_times import show_clock_time
from pipeline.core.usual_range_text import BASIS_TEXTS
from pipeline.core.verdict_words import CAUSES_OF_EVENTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = structlog.get_logger(__name__)

#: Spans that are read until there are enough points: sensors have them in hours, daily prices in a year.
_SPANS_NS = tuple(to_nanoseconds(timedelta(days=d)) for d in (0.25, 2, 14, 400))
MIN_POINTS = 60
MAX_POINTS = 240
#: Least width of the usual range, as a part 1 / n of the picture.
RANGE_WIDTH_SHARE = 10
_SPAN_AFTER_NS = to_nanoseconds(timedelta(hours=6))
#: Room after the last reading, in hundredths of the picture.
ROOM_FOR_LAST = 3
MAX_TITLE, MAX_NAME, MAX_NAME_ABOVE = 90, 34, 24

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
        title = f"{stream}, {place}: {leading(anomaly).name}"
        png = io.BytesIO()
        figure_of(anomaly, points, timezone or "UTC", title).savefig(png, format="png")
        return png.getvalue()

    def _points(self, stream: str, anomaly: AnomalyView) -> dict[str, NDArray[Any]] | None:
        channel = leading(anomaly).name
        kinds = (
            "value",
            "expected",
            "lower",
            "upper",
            *(("relation",) if anomaly.cause == "relation" else ()),
        )
        columns = ["flag", *(f"{kind}:{channel}" for kind in kinds)]
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
        # Rows of an earlier version have no relation.
        known = [name for name in columns if name in table.column_names or not name.startswith("relation:")]
        shown = {name: table.column(name).to_numpy()[first:last] for name in known}
        return {"time": time[first:last], "flag": shown.pop("flag")} | {
            name.partition(":")[0]: v for name, v in shown.items()
        }


def figure_of(anomaly: AnomalyView, points: dict[str, NDArray[Any]], timezone: str, title: str) -> Figure:
    """Return the picture of an anomaly.

    Args:
        anomaly: The anomaly.
        points: Columns of its leading channel: time, flag, value, expected, lower, upper, relation.
        timezone: Time zone of the times.
        title: Title of the picture.
    """
    # Figure without pyplot: no global state, so any thread may draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    quantity = quantity_of(anomaly, leading(anomaly), points)
    if quantity is not None and anomaly.basis in BASIS_TEXTS:
        peak_ns = round(moment(anomaly.peak).timestamp() * SECOND_NS)
        quantity = replace(quantity, usual=f"{quantity.usual} at {show_clock_time(peak_ns, timezone)}")
    below = quantity is not None and not quantity.of_values
    figure = Figure(figsize=(6.0, 4.0 if below else 3.1), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot(2, 1, 1) if below else figure.add_subplot()
    figure.suptitle(_literal(clean(title, MAX_TITLE)), fontsize=9, x=0.01, ha="left")
    time = points["time"].astype("datetime64[ns]")
    colour = SEVERITY_COLOURS.get(anomaly.severity, "#c4162a")
    room = max((time[-1] - time[0]) // 100, np.timedelta64(1, "ms"))
    axes.set_xlim(time[0] - room, time[-1] + room * ROOM_FOR_LAST)  # the last reading is often the one
    _draw_values(axes, anomaly, points, quantity, colour)
    judged, shown = points["value"], [axes]
    if quantity is not None:
        judged = quantity.values
        if below:
            shown.append(figure.add_subplot(2, 1, 2, sharex=axes))
            _draw_below(shown[1], anomaly, time, quantity, colour)
            axes.tick_params(labelbottom=False)
    at = _shown_readings(anomaly, points, quantity)
    if at.any():
        label = "alarm" if quantity is None else "outside"
        shown[-1].plot(time[at], judged[at], "o", color=colour, ms=3.5, label=label)
    height = draw_marks(shown, anomaly, colour)
    finish(figure, shown, leading(anomaly).unit, timezone, height)
    return figure


def _draw_values(
    axes: Any,
    anomaly: AnomalyView,
    points: dict[str, NDArray[Any]],
    quantity: ChartQuantity | None,
    colour: str,
) -> None:
    """Draw the values, their forecast, and a quantity in their unit.

    Args:
        axes: The axes.
        anomaly: The anomaly.
        points: Columns of the chart.
        quantity: The quantity of the anomaly, None if it has no curve.
        colour: Colour of the severity.
    """
    time, top = points["time"].astype("datetime64[ns]"), leading(anomaly)
    axes.fill_between(
        time, points["lower"], points["upper"], color="#9db8d9", alpha=0.45, lw=0, label="prediction interval"
    )
    axes.plot(time, points["expected"], color="#4a7ebb", lw=1, ls="--", label="forecast")
    axes.plot(time, points["value"], color="#333333", lw=1.2, label="observed")
    limit(axes, points, quantity)
    if quantity is not None and quantity.implied is not None:
        implied = "implied by the other channels"
        axes.plot(time, quantity.implied, color=colour, lw=1.2, label=implied)
    if quantity is not None and quantity.of_values:
        if quantity.label:
            axes.plot(time, quantity.values, color=colour, lw=1.2, label=quantity.label)
        _draw_range(axes, anomaly, time, quantity, colour)
    name = f"{top.name} ({top.unit})" if top.unit else top.name
    most = MAX_NAME if quantity is None or quantity.of_values else MAX_NAME_ABOVE
    axes.set_ylabel(_literal(clean(name, most)), fontsize=8)


def _draw_below(
    axes: Any, anomaly: AnomalyView, time: NDArray[Any], quantity: ChartQuantity, colour: str
) -> None:
    """Draw a quantity in another unit than the value.

    Args:
        axes: The axes.
        anomaly: The anomaly.
        time: Times of the points.
        quantity: The quantity.
        colour: Colour of the severity.
    """
    axes.plot(time, quantity.values, color=colour, lw=1.2, label=_literal(quantity.label))
    span = time[_range_span(anomaly, time)] if anomaly.basis in BASIS_TEXTS else time
    for end, label in zip(quantity.ends, (quantity.usual, "_nolegend_"), strict=False):
        axes.plot(span[[0, -1]], [end, end], color=colour, lw=1.2, ls=":", label=label)
    axes.set_ylabel(_literal(clean(quantity.label, MAX_NAME_ABOVE)), fontsize=8)


def _draw_range(
    axes: Any, anomaly: AnomalyView, time: NDArray[Any], quantity: ChartQuantity, colour: str
) -> None:
    """Draw the usual range beside the readings for which it holds.

    Args:
        axes: The axes, with their last limits of the values.
        anomaly: The anomaly.
        time: Times of the points.
        quantity: The quantity.
        colour: Colour of the severity.
    """
    near = _range_span(anomaly, time)
    label = _literal(range_label(axes, quantity, leading(anomaly).unit))
    for limit_of_range in quantity.ends:
        curve = np.broadcast_to(limit_of_range, time.shape)[near]
        axes.plot(time[near], curve, color=colour, lw=1.2, ls=":", label=label)
        label = "_nolegend_"


def _range_span(anomaly: AnomalyView, time: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the points beside which the stated usual range is drawn (N,).

    A range of one time of day ends with the hour around the stated reading, since
    another one holds at other times.
    """
    begin, end = utc(anomaly.start), utc(anomaly.end)
    if anomaly.basis in BASIS_TEXTS:
        half = np.timedelta64(30, "m")
        begin, end = max(begin, utc(anomaly.peak) - half), min(end, utc(anomaly.peak) + half)
    # That beside one reading could not be seen.
    room = max((time[-1] - time[0]) // RANGE_WIDTH_SHARE - (end - begin), np.timedelta64(0, "ns")) // 2
    return np.asarray((time >= begin - room) & (time <= end + room))


def _shown_readings(
    anomaly: AnomalyView, points: dict[str, NDArray[Any]], quantity: ChartQuantity | None
) -> NDArray[np.bool_]:
    """Return the readings of the anomaly outside of what the sentence states (N,).

    Without a curve they are the alarms of the anomaly. Before the first alarm, readings outside had to last.
    """
    begin, end = (round(moment(t).timestamp() * SECOND_NS) for t in (anomaly.start, anomaly.end))
    within = (points["time"] >= begin) & (points["time"] <= end)
    flagged = points["flag"].astype(bool)
    if quantity is None:
        return np.asarray(within & flagged)
    if anomaly.first_alarm:
        flagged |= points["time"] < round(moment(anomaly.first_alarm).timestamp() * SECOND_NS)
    return np.asarray(within & flagged & quantity.is_outside)


def _literal(text: str) -> str:
    """Escape dollar signs, between which matplotlib reads a formula."""
    return text.replace("$", r"\$")
