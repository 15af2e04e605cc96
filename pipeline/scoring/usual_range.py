"""Numbers and severity of an anomaly under the decision "usual_range".

A flagged row states one quantity of one channel outside its usual range. An anomaly tells the quantity of
its first flagged row, at the row of its largest deviation. Only rows of the first unbroken run of this
quantity count, so that the return to the usual range is never told.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from detectors.base import BASES, CAUSES, FORECASTERS, Verdicts
from pipeline.core.deviation_severity import severity_of
from pipeline.core.types import Anomaly, DeviationContext, FarthestReading, Severity
from pipeline.core.verdict_words import CAUSES_OF_CHANGES
from pipeline.scoring.deviation_course import CAUSES_OF_EXTREMES, note_extremes
from pipeline.scoring.deviation_span import extend_span, still_repeats
from pipeline.scoring.provenance import Provenance, Scored

#: Fewest consecutive rows without a flag that close an anomaly.
MIN_ROWS_UNTIL_CLOSED = 12
#: Longest distance (rows) between two rows of one run of a quantity.
MAX_RUN_GAP_ROWS = 3
#: Rows from the first flagged row on in which the value itself replaces the quantity of the first row.
VALUE_TAKEOVER_ROWS = 4

VALUE = "unusual_value"
#: Causes that the value itself replaces: they describe the same deviation less directly.
INDIRECT_CAUSES = frozenset(
    {"unusual_step", "unusual_level", "unusual_noise", "relation", "absence", "trend"}
)

_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


def rows_until_closed(close_after: int) -> int:
    """Return the number of rows without a flag that close an anomaly, given the key ``close_after``."""
    return max(close_after, MIN_ROWS_UNTIL_CLOSED)


def update_deviation(anomaly: Anomaly, scored: Scored, row: np.intp, provenance: Provenance) -> None:
    """Add a flagged row to an open anomaly whose ``points`` already count it.

    Args:
        anomaly: the anomaly, which is changed in place.
        scored: the batch.
        row: the flagged row of the batch.
        provenance: model and settings of the stream.
    """
    verdicts, seq = scored.verdicts, int(scored.seq[row])
    cause, channel = CAUSES[verdicts.cause[row]], int(verdicts.channel[row])
    direction = _direction(cause, int(verdicts.side[row]))
    if anomaly.points > 1 and not anomaly.ratio:
        return  # it was opened by the decision "surprise", before an upgrade, and keeps its numbers
    same_side = channel == int(np.argmax(anomaly.contribution)) and direction == anomaly.direction
    if anomaly.points > 1:
        extend_span(anomaly, scored, row, same_side=same_side)
    if anomaly.points == 1 or _value_takes_over(anomaly, cause, same_side, seq):
        _set_peak(anomaly, scored, row, cause, direction)
    elif same_side and cause == anomaly.cause and seq - anomaly.told_seq <= MAX_RUN_GAP_ROWS:
        anomaly.told_seq = seq
        if verdicts.ratio[row] > anomaly.ratio:
            _set_peak(anomaly, scored, row, cause, direction)
    elif anomaly.cause == "flatline":
        _count_repeated(anomaly, scored, row)
    elif channel == int(np.argmax(anomaly.contribution)):
        _keep_farthest(anomaly, scored, row, same_side=same_side)
    note_extremes(anomaly, scored, row)
    if anomaly.context is not None and provenance.kinds:
        anomaly.context.kind = provenance.kinds[anomaly.leading_channel]
    anomaly.relative = provenance.relative_changes and anomaly.cause in CAUSES_OF_CHANGES
    severity = severity_of(anomaly)
    anomaly.severity = max(anomaly.severity, severity, key=_RANKS.__getitem__)


def _count_repeated(anomaly: Anomaly, scored: Scored, row: np.intp) -> None:
    """Count the rows of a standstill in which another quantity leads."""
    at, seq = anomaly.leading_channel, int(scored.seq[row])
    if still_repeats(anomaly, scored, row) and seq - anomaly.told_seq <= MAX_RUN_GAP_ROWS:
        anomaly.observed[at] += seq - anomaly.told_seq
        anomaly.told_seq = seq


def _keep_farthest(anomaly: Anomaly, scored: Scored, row: np.intp, *, same_side: bool) -> None:
    """Keep a row that is farther outside than the peak, but no way back.

    Of an oscillation, the mean size of the last changes may be farther outside than the first change.
    """
    verdicts, context = scored.verdicts, anomaly.context
    cause, ratio = CAUSES[verdicts.cause[row]], float(verdicts.ratio[row])
    oscillates = (anomaly.cause, cause) == ("unusual_step", "unusual_noise")
    if context is None or cause == "forecast" or not (verdicts.alone[row] and (same_side or oscillates)):
        return
    if anomaly.cause in CAUSES_OF_EXTREMES and cause in CAUSES_OF_CHANGES:
        return  # a value is told by the farthest value, whatever it changed by
    if ratio <= max(anomaly.ratio, context.farthest.ratio if context.farthest else 0.0):
        return
    low, high = _finite(verdicts.usual_low[row]), _finite(verdicts.usual_high[row])
    value = _finite(scored.points.values[row, int(verdicts.channel[row])])
    observed, basis = float(verdicts.observed[row]), BASES[verdicts.basis[row]]
    context.farthest = FarthestReading(cause, observed, low, high, ratio, value, basis)
    if anomaly.course is not None:
        anomaly.course.farthest_ns = int(scored.points.time[row])


def _value_takes_over(anomaly: Anomaly, cause: str, same_side: bool, seq: int) -> bool:
    return (
        same_side
        and cause == VALUE
        and anomaly.cause in INDIRECT_CAUSES
        and seq - anomaly.first_flag_seq < VALUE_TAKEOVER_ROWS
    )


def stated_surprise(verdicts: Verdicts, row: np.intp | int) -> float:
    """Return the surprise that an anomaly with its peak in ``row`` states.

    It is the rarity of the stated quantity. The decision by surprise, and some registered detectors, state
    none.
    """
    stated = float(verdicts.stated_rarity[row])
    return float(verdicts.rarity[row] or verdicts.surprise[row]) if math.isnan(stated) else stated


def _set_peak(anomaly: Anomaly, scored: Scored, row: np.intp, cause: str, direction: str) -> None:
    """Make ``row`` the peak of the anomaly."""
    verdicts, points = scored.verdicts, scored.points
    channel = int(verdicts.channel[row])
    anomaly.peak_ns, anomaly.peak_offset = int(points.time[row]), int(scored.offset[row])
    anomaly.told_seq, anomaly.every_ns = int(scored.seq[row]), int(points.every[row])
    # Messages are sent again when the surprise grows; the choice of another row must not lower it.
    rarity = stated_surprise(verdicts, row)
    anomaly.score = max(anomaly.score, 1 - 10.0**-rarity)
    anomaly.surprise = max(anomaly.surprise, rarity)
    anomaly.observed = points.values[row].tolist()
    anomaly.expected, anomaly.lower, anomaly.upper = (
        a[row].tolist() for a in (verdicts.expected, verdicts.lower, verdicts.upper)
    )
    low, high = float(verdicts.usual_low[row]), float(verdicts.usual_high[row])
    anomaly.observed[channel] = float(verdicts.observed[row])
    anomaly.lower[channel], anomaly.upper[channel] = low, high
    anomaly.expected[channel] = anomaly.expected[channel] if cause == "forecast" else _middle(low, high)
    former = None if anomaly.context is None else anomaly.context.farthest
    anomaly.context = _context(scored, row, anomaly.channels)
    if former is not None and former.ratio > verdicts.ratio[row]:
        anomaly.context.farthest = former
    anomaly.contribution = [float(i == channel) for i in range(len(anomaly.channels))]
    anomaly.forecaster = FORECASTERS[verdicts.forecaster[row]]
    anomaly.cause, anomaly.direction, anomaly.ratio = cause, direction, float(verdicts.ratio[row])


def _context(scored: Scored, row: np.intp, channels: list[str]) -> DeviationContext:
    """Return the numbers beside the usual range that ``row`` states."""
    verdicts, values = scored.verdicts, scored.points.values[row]
    channel, partner = int(verdicts.channel[row]), int(verdicts.partner[row])
    context = DeviationContext(
        BASES[verdicts.basis[row]], _finite(values[channel]), _finite(verdicts.recent_mean[row])
    )
    if partner < 0:
        return context
    return replace(
        context,
        partner=channels[partner],
        partner_value=_finite(values[partner]),
        implied=_finite(verdicts.implied[row]),
    )


def _middle(low: float, high: float) -> float:
    """Return the middle of a range, or its only finite end."""
    finite = [end for end in (low, high) if math.isfinite(end)]
    return sum(finite) / len(finite) if finite else math.nan


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _direction(cause: str, side: int) -> str:
    """Return the direction of a deviation. A flatline has none: the value is neither high nor low."""
    return "mixed" if cause == "flatline" else {1: "up", -1: "down"}.get(side, "mixed")
