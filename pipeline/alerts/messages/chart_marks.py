"""Marks of a picture: begin, detection and end of an anomaly."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Any, NamedTuple

import numpy as np

from pipeline.alerts.messages.payload import AnomalyView, moment

FONT_POINTS, ROW_POINTS = 7, 9
#: Width of a character of a label, as a share of the width of the axes.
CHARACTER_SHARE = 0.0095


class Mark(NamedTuple):
    """A time with its label, which lies to the ``side`` of it: right, left or center.

    The time is one of NumPy, or a number of the axis.
    """

    at: Any
    label: str
    side: str


class Placed(NamedTuple):
    """A mark, and the row of its label above the axes."""

    mark: Mark
    row: int


def utc(text: str) -> np.datetime64:
    """Return a time of a payload."""
    return np.datetime64(moment(text).astimezone(UTC).replace(tzinfo=None))


def begin_window(anomaly: AnomalyView) -> tuple[np.datetime64, np.datetime64] | None:
    """Return the span before the stated begin in which a deviation can have begun."""
    if not anomaly.start_uncertainty_s:
        return None
    begin = utc(anomaly.start)
    return begin - np.timedelta64(timedelta(seconds=anomaly.start_uncertainty_s)), begin


def marks_of(anomaly: AnomalyView) -> list[Mark]:
    """Return the marks of an anomaly; equal times have one."""
    times = [
        ("begin", anomaly.start, "left"),
        ("detected", anomaly.first_alarm or anomaly.start, "center"),
    ]
    if anomaly.state != "open":
        times.append(("end", anomaly.end, "right"))
    if len(times) == 3 and anomaly.start == anomaly.end:
        return [Mark(utc(anomaly.start), "one reading", "center")]
    found: dict[np.datetime64, Mark] = {}
    for label, text, side in times:
        at = utc(text)
        known = found.get(at)
        found[at] = (
            Mark(at, label, side) if known is None else known._replace(label=f"{known.label} and {label}")
        )
    return list(found.values())


def place(marks: Sequence[Mark], first: float, last: float) -> list[Placed]:
    """Return the marks with rows in which their labels do not overlap.

    Args:
        marks: The marks.
        first: Left end of the axes.
        last: Right end of the axes.
    """
    rows: list[list[tuple[float, float]]] = []
    placed = []
    for mark in marks:
        at, width = float((mark.at - first) / (last - first)), len(mark.label) * CHARACTER_SHARE
        side = mark.side
        if side != "right" and at - width * (1 if side == "left" else 0.5) < 0:
            side = "right"
        if side != "left" and at + width * (1 if side == "right" else 0.5) > 1:
            side = "left"
        begin = at - width * {"left": 1.0, "center": 0.5, "right": 0.0}[side]
        taken = (begin - CHARACTER_SHARE, begin + width + CHARACTER_SHARE)
        row = next(
            (n for n, row in enumerate(rows) if all(taken[1] <= a or taken[0] >= b for a, b in row)),
            len(rows),
        )
        rows += [[]] * (row == len(rows))
        rows[row] = [*rows[row], taken]
        placed.append(Placed(mark._replace(side=side), row))
    return placed


def draw_marks(shown: Sequence[Any], anomaly: AnomalyView, colour: str) -> float:
    """Draw the marks, and return the height of their labels in points.

    Args:
        shown: The axes, with their last limits of time.
        anomaly: The anomaly.
        colour: Colour of its severity.
    """
    window = begin_window(anomaly)
    for axes in shown:
        axes.axvspan(utc(anomaly.start), utc(anomaly.end), color=colour, alpha=0.14, lw=0)
        if window is not None:
            label = "may have begun here" if axes is shown[0] else "_nolegend_"
            axes.axvspan(*window, fc=(colour, 0.07), ec=(colour, 0.4), lw=0.5, label=label)
    left, right = shown[0].get_xlim()
    marks = [one._replace(at=shown[0].convert_xunits(one.at)) for one in marks_of(anomaly)]
    placed = place([one for one in marks if left <= one.at <= right], left, right)
    for (time, label, side), row in placed:
        for axes in shown:
            axes.axvline(time, color=colour, lw=0.7, alpha=0.6)
        shown[0].annotate(
            label,
            (time, 1.0),
            (0, 2 + ROW_POINTS * row),
            xycoords=shown[0].get_xaxis_transform(),
            textcoords="offset points",
            ha={"left": "right", "right": "left"}.get(side, "center"),
            fontsize=FONT_POINTS,
            color="#444444",
        )
    return 2 + ROW_POINTS * (1 + max((one.row for one in placed), default=-1))
