"""Recorded points of one series, reduced to what a plot of some width can show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.schema import Config
from pipeline.core.durations import DAY_NS, SECOND_NS
from pipeline.core.errors import InputError
from storage.history.reader import HistoryReader

#: Points before and after an anomaly that show what is usual there.
POINTS_BEFORE, POINTS_AFTER = 300, 60
#: Time that is read on each side until there are enough points: sensors have them in minutes, daily prices in
#: a year.
_SPANS_NS = (600 * SECOND_NS, 12 * 3600 * SECOND_NS, 14 * DAY_NS, 500 * DAY_NS)

_PER_POINT = ("flag", "surprise")
_PER_CHANNEL = ("value", "expected", "lower", "upper")


class PlotView(NamedTuple):
    """Part of a series that a plot of ``width`` pixels shows, without its end."""

    stream: str
    series: str
    channel: str
    since_ns: int
    until_ns: int
    width: int


def plot_points(config: Config, view: PlotView) -> pa.Table:
    """Return the points of the extremes of each pixel, and all flagged ones.

    The columns are time (ns), value, expected, lower, upper, flag and surprise. All points are
    returned if there are at most two per pixel.

    Raises:
        InputError: The stream has no such channel.
        OSError: The recorded history cannot be read.
    """
    stream, series, channel, since_ns, until_ns, width = view
    channels = config.streams[stream].channels
    if channel not in channels:
        raise InputError(f"stream {stream} has no channel {channel!r}; it has {', '.join(channels)}")
    wanted = [*_PER_POINT, *(f"{name}:{channel}" for name in _PER_CHANNEL)]
    read = HistoryReader(config.history_path).read(
        stream, series=series, since_ns=since_ns, until_ns=until_ns, columns=wanted
    )
    table = _renamed(read, channel)
    if table.num_rows <= 2 * width:
        return table
    time, value = (table.column(name).to_numpy() for name in ("time", "value"))
    pixel = ((time - since_ns) // max(1, (until_ns - since_ns) // width)).astype(np.int64)
    kept = extremes(pixel, value)
    flagged = np.flatnonzero(table.column("flag").to_numpy())
    return table.take(pa.array(np.union1d(kept, flagged)))


def range_around(
    history: HistoryReader, stream: str, series: str, start_ns: int, end_ns: int
) -> tuple[int, int]:
    """Return (since, until) in ns with points before and after an anomaly.

    There are fewer points where fewer are recorded.

    Args:
        history: The recorded history.
        stream: Name of the stream.
        series: Name of the series.
        start_ns: First point of the anomaly.
        end_ns: Its last one.

    Raises:
        OSError: The recorded history cannot be read.
    """

    def times(since_ns: int, until_ns: int) -> NDArray[np.int64]:
        table = history.read(stream, series=series, since_ns=max(0, since_ns), until_ns=until_ns, columns=[])
        return table.column("time").to_numpy().astype(np.int64)

    before = after = np.empty(0, np.int64)
    for span_ns in _SPANS_NS:
        if len(before) < POINTS_BEFORE:
            before = times(start_ns - span_ns, start_ns)
        if len(after) < POINTS_AFTER:
            after = times(end_ns + 1, end_ns + 1 + span_ns)
        if len(before) >= POINTS_BEFORE and len(after) >= POINTS_AFTER:
            break
    since_ns = int(before[-POINTS_BEFORE:][0]) if len(before) else start_ns
    return since_ns, (int(after[:POINTS_AFTER][-1]) if len(after) else end_ns) + 1


def extremes(pixel: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows of the lowest and of the highest value of each pixel, in order.

    pixel, value (N,). A missing value is neither; a pixel with only missing values keeps one row.
    """
    missing = np.isnan(value)
    lowest = np.lexsort((np.where(missing, np.inf, value), pixel))
    highest = np.lexsort((np.where(missing, -np.inf, value), pixel))
    _, first = np.unique(pixel[lowest], return_index=True)
    last = np.append(first[1:], len(pixel)) - 1
    return np.union1d(lowest[first], highest[last])


def _renamed(table: pa.Table, channel: str) -> pa.Table:
    """Return the columns without the name of the channel.

    A column that is not recorded is NaN.
    """
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"time": table.column("time")}
    for name, stored in _names(channel):
        columns[name] = (
            table.column(stored)
            if stored in table.column_names
            else pa.array(np.full(table.num_rows, np.nan, np.float32))
        )
    return pa.table(columns)


def _names(channel: str) -> Sequence[tuple[str, str]]:
    return [*((name, f"{name}:{channel}") for name in _PER_CHANNEL), *((name, name) for name in _PER_POINT)]
