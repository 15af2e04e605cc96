"""One step of a detector over a batch in which series are reset."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from detectors.base import Detector, Points, Verdicts
from pipeline.scoring.series_table import SeriesTable


def advance_detector(
    detector: Detector, series: SeriesTable, points: Points, restart: NDArray[np.bool_]
) -> Verdicts:
    """Advance the state of the series by a batch, and return its verdicts.

    A series that is reset within the batch is reset between its points, however the batch was cut.

    Args:
        detector: The detector.
        series: The series and their state.
        points: The N points of the batch.
        restart: (N,) True where the series is reset before the point.
    """
    parts, verdicts = _rows_between_resets(points.slot, restart), []
    for rows in parts:
        if len(restarted := np.unique(points.slot[rows][restart[rows]])):
            series.reset(restarted, "detector")
        part = points if len(parts) == 1 else Points(*(getattr(points, f.name)[rows] for f in fields(Points)))
        series.state["detector"], verdict = detector.step(series.state["detector"], part)
        verdicts.append(verdict)
    if len(parts) == 1:
        return verdicts[0]
    back = np.argsort(np.concatenate(parts))
    return Verdicts(*(np.concatenate([getattr(v, f.name) for v in verdicts])[back] for f in fields(Verdicts)))


def _rows_between_resets(slot: NDArray[np.int32], restart: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Group the rows of a batch by the number of resets of their series before them."""
    if not restart.any():
        return [np.arange(len(slot))]
    order = np.argsort(slot, kind="stable")
    resets = np.cumsum(restart[order])
    first = np.flatnonzero(np.diff(slot[order], prepend=-1))  # where each series' rows begin
    number = np.empty(len(slot), np.int64)
    number[order] = resets - np.repeat((resets - restart[order])[first], np.diff(first, append=len(slot)))
    return [rows for rows in (np.flatnonzero(number == n) for n in range(number.max() + 1)) if len(rows)]
