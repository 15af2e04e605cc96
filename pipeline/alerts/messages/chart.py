"""A small picture of an anomaly: the series, what was expected, the band in which nothing would have been
flagged.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from pipeline.alerts.messages.payload import AnomalyView, Payload, moment
from pipeline.alerts.messages.style import SEVERITY_COLOURS
from pipeline.alerts.messages.text import leading
from pipeline.core.durations import SECOND_NS, to_nanoseconds

log = structlog.get_logger(__name__)

#: How far back to look for enough points: sensors have them within hours, stocks within years.
_PAST = tuple(to_nanoseconds(timedelta(days=d)) for d in (0.25, 2, 14, 400))
_ENOUGH = 60
_MOST = 240
_AFTER = to_nanoseconds(timedelta(hours=6))

#: (stream, series, since_ns, until_ns, columns) → table; ``storage.history.history.HistoryReader.read`` with
#: its arguments in a row.
Read = Callable[[str, str, int, int, list[str]], Any]


class ChartRenderer:
    """Draws what a payload is about. None where the history has no points, or cannot be read."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def __call__(self, payload: Payload) -> bytes | None:
        if not payload.data.anomalies:
            return None
        return self.draw(payload.data.stream, payload.data.anomalies[0])

    def draw(self, stream: str, anomaly: AnomalyView) -> bytes | None:
        """PNG, 600 by 240 pixels."""
        try:
            points = self._points(stream, anomaly)
        except (OSError, ValueError, KeyError) as error:
            log.warning("no picture: the history cannot be read", stream=stream, error=str(error))
            return None
        return None if points is None else _draw(anomaly, points)

    def _points(self, stream: str, anomaly: AnomalyView) -> dict[str, NDArray[Any]] | None:
        channel = leading(anomaly).name
        columns = ["flag", *(f"{kind}:{channel}" for kind in ("value", "expected", "lower", "upper"))]
        start, end = (round(moment(t).timestamp() * SECOND_NS) for t in (anomaly.start, anomaly.end))
        for past in _PAST:
            table = self._read(stream, anomaly.series, start - past, end + _AFTER, columns)
            if table.num_rows >= _ENOUGH:
                break
        if table.num_rows == 0:
            return None
        time = table.column("time").to_numpy()
        # Most of the picture is the past; what came after the end shows whether it is over.
        last = min(int(np.searchsorted(time, end, "right")) + _MOST // 6, len(time))
        first = max(min(last - _MOST, int(np.searchsorted(time, start)) - _ENOUGH), 0)
        shown = {name: table.column(name).to_numpy()[first:last] for name in columns}
        return {"time": time[first:last], "flag": shown.pop("flag")} | {
            name.partition(":")[0]: v for name, v in shown.items()
        }


def _draw(anomaly: AnomalyView, points: dict[str, NDArray[Any]]) -> bytes:
    # Figure without pyplot: no global state, so any thread may draw.
    from matplotlib import dates
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 2.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    time = points["time"].astype("datetime64[ns]")
    colour = SEVERITY_COLOURS.get(anomaly.severity, "#c4162a")
    span = [
        np.datetime64(moment(t).astimezone(UTC).replace(tzinfo=None)) for t in (anomaly.start, anomaly.end)
    ]
    axes.axvspan(*span, color=colour, alpha=0.10, lw=0)
    axes.fill_between(time, points["lower"], points["upper"], color="#9db8d9", alpha=0.45, lw=0, label="band")
    axes.plot(time, points["expected"], color="#4a7ebb", lw=1, ls="--", label="expected")
    axes.plot(time, points["value"], color="#333333", lw=1.2, label="observed")
    flagged = points["flag"].astype(bool)
    axes.plot(time[flagged], points["value"][flagged], "o", color=colour, ms=3.5, label="flagged")
    _date_axis(axes, dates)
    top = leading(anomaly)
    axes.set_ylabel(_literal(f"{top.name} ({top.unit})" if top.unit else top.name), fontsize=8)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.01)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _limit(axes, points)
    axes.legend(
        fontsize=7, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.0
    )
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _date_axis(axes: Any, dates: Any) -> None:
    locator = dates.AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.xaxis.get_offset_text().set_fontsize(8)


def _limit(axes: Any, points: dict[str, NDArray[Any]]) -> None:
    """A band that was still wide when the series was young must not flatten what is to be seen."""
    seen = points["value"][np.isfinite(points["value"])]
    band = np.concatenate([points["lower"], points["upper"]])
    band = band[np.isfinite(band)]
    if not len(seen):
        return
    low, high = float(seen.min()), float(seen.max())
    if len(band):
        low, high = min(low, float(np.quantile(band, 0.05))), max(high, float(np.quantile(band, 0.95)))
    room = 0.06 * (high - low) or abs(high) * 0.06 or 1.0
    axes.set_ylim(low - room, high + room)


def _literal(text: str) -> str:
    """matplotlib reads text between dollar signs as a formula."""
    return text.replace("$", r"\$")
