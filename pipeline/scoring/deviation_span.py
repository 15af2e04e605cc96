"""First row, last row and number of readings of a deviation.

The flagged rows of an anomaly say when it was found and when it is closed. The deviation itself begins before
the first of them where it had to last for the alarm, and ends before the last of them where a mean of rows is
still outside, or where only the way back is unusual.
"""

from __future__ import annotations

import math

import numpy as np

from detectors.base import CAUSES
from pipeline.core.farthest_reading import window_ns
from pipeline.core.types import Anomaly, DeviationCourse
from pipeline.scoring.provenance import Provenance, Scored
from pipeline.scoring.recent_readings import ReadingsBefore

#: Causes of rows whose change is unusual, as the way back of a deviation is.
CHANGES = frozenset({"unusual_step", "unusual_noise"})
#: Share of the way from the usual range to the peak, below which a value on the other side is back.
BACK_SHARE = 0.1


def begin_span(
    anomaly: Anomaly, scored: Scored, row: np.intp, provenance: Provenance, before: ReadingsBefore | None
) -> None:
    """State when the deviation of a new anomaly began.

    A standstill began with the first of its equal values, any other deviation with the first of the
    consecutive rows outside that end with the flagged one. That of a mean began with the readings that moved
    the mean, where they are known. The time follows from the cadence, so that it does not depend on how rows
    were cut into batches.

    Args:
        anomaly: the anomaly, which is changed in place.
        scored: the batch.
        row: the first flagged row.
        provenance: says what each channel is.
        before: the last readings before the batch.
    """
    verdicts, every_ns = scored.verdicts, int(scored.points.every[row])
    earlier = max(int(verdicts.run_outside[row]) - 1, 0)
    cause, repeated = CAUSES[verdicts.cause[row]], float(verdicts.observed[row])
    if cause == "flatline" and math.isfinite(repeated):
        earlier = round(repeated)
    uncertain_ns = window_ns(cause, every_ns)
    begin = None if before is None else before.begin(scored, row, provenance, earlier)
    if begin is not None:
        earlier, uncertain_ns = begin.earlier, 0 if begin.sure else uncertain_ns
    earlier = max(min(earlier, int(scored.seq[row]) - 1), 0)  # no longer than the series
    anomaly.onset_ns = anomaly.start_ns - earlier * max(every_ns, 0)
    anomaly.course = DeviationCourse(uncertain_ns)
    if begin is not None and begin.farthest is not None:
        anomaly.course.widen(begin.farthest, int(verdicts.side[row]))
    _end_at(anomaly, scored, row)


def extend_span(anomaly: Anomaly, scored: Scored, row: np.intp, *, same_side: bool) -> None:
    """Let the deviation last until a further flagged row, if the row belongs to it.

    Args:
        anomaly: the anomaly, which is changed in place; its numbers are those before the row.
        scored: the batch.
        row: the flagged row.
        same_side: the row has the channel and the direction of the anomaly.
    """
    if not anomaly.onset_ns or not scored.verdicts.alone[row]:
        return  # an anomaly of an earlier version has no onset
    cause = CAUSES[scored.verdicts.cause[row]]
    if anomaly.cause == "flatline" != cause and not still_repeats(anomaly, scored, row):
        return
    if not same_side and cause == "forecast" != anomaly.cause:
        return
    if not same_side and _is_back(anomaly, scored, row):
        return
    if cause in CHANGES and anomaly.cause not in CHANGES:
        return
    steps_back = not same_side and cause == "unusual_step" == anomaly.cause
    _end_at(anomaly, scored, row, before=steps_back)


def still_repeats(anomaly: Anomaly, scored: Scored, row: np.intp) -> bool:
    """Return True if the leading channel has the value that a standstill repeats."""
    repeated = None if anomaly.context is None else anomaly.context.value
    return repeated is not None and float(scored.points.values[row, anomaly.leading_channel]) == repeated


def _is_back(anomaly: Anomaly, scored: Scored, row: np.intp) -> bool:
    """Return True if the leading channel is nearly back at its usual range."""
    at = int(np.argmax(anomaly.contribution))
    if anomaly.cause != "unusual_value" or int(scored.verdicts.channel[row]) != at:
        return False
    low, high, peak = anomaly.lower[at], anomaly.upper[at], anomaly.observed[at]
    value = float(scored.points.values[row, at])
    distance = max(value - high, low - value)
    return bool(distance < BACK_SHARE * max(peak - high, low - peak))


def _end_at(anomaly: Anomaly, scored: Scored, row: np.intp, *, before: bool = False) -> None:
    """Let the deviation end with ``row``, or with the row before it."""
    every_ns, seq = max(int(scored.points.every[row]), 0), int(scored.seq[row])
    earlier = round((anomaly.start_ns - anomaly.onset_ns) / every_ns) if every_ns else 0
    readings = earlier + seq - anomaly.first_flag_seq + (not before)
    ended_ns = int(scored.points.time[row]) - before * every_ns
    anomaly.span_readings = max(anomaly.span_readings, readings)
    anomaly.outside_until_ns = max(anomaly.outside_until_ns, ended_ns)
