"""Extremes of a deviation, and the value at which it ended."""

from __future__ import annotations

import math

import numpy as np

from detectors.base import CAUSES
from pipeline.core.types import Anomaly
from pipeline.scoring.provenance import Scored

#: Causes whose readings lie outside of a range of values.
CAUSES_OF_EXTREMES = frozenset({"unusual_value", "unusual_level"})


def note_extremes(anomaly: Anomaly, scored: Scored, row: np.intp) -> None:
    """Keep the farthest values of the leading channel on both sides of its range.

    A row in which another quantity leads can only go farther than values that were outside.

    Args:
        anomaly: the anomaly, which is changed in place.
        scored: the batch.
        row: a flagged row.
    """
    verdicts, course, at = scored.verdicts, anomaly.course, anomaly.leading_channel
    value = float(scored.points.values[row, at])
    if course is None or int(verdicts.channel[row]) != at or not math.isfinite(value):
        return
    if CAUSES[verdicts.cause[row]] in CAUSES_OF_EXTREMES:
        if verdicts.alone[row]:
            course.widen(value, int(verdicts.side[row]))
        return
    for side, known in ((-1, course.lowest), (1, course.highest)):
        if known is not None:
            course.widen(value, side)


def note_last_value(anomaly: Anomaly, scored: Scored, slot: int, close_after: int) -> None:
    """Keep the value of the leading channel at the row that closes an anomaly.

    Args:
        anomaly: the anomaly, which is changed in place.
        scored: the batch, which has that row.
        slot: slot of the anomaly.
        close_after: rows without a flag that close it.
    """
    if anomaly.course is None:
        return
    rows = scored.rows_of(slot)
    closing = (scored.seq[rows] == anomaly.last_flag_seq + close_after) & (scored.offset[rows] >= 0)
    if closing.any():
        value = float(scored.points.values[rows[closing][0], anomaly.leading_channel])
        anomaly.course.last = value if math.isfinite(value) else None
