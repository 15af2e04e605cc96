"""Anomalies from consecutive flagged points of a series: opened, updated, closed.

An anomaly is identified by its stream, series and first flagged time, so that the daemon, a replay and a
backfill give it the same id. The open ones of a partition are read from the database when the partition is
acquired: the committed state counts, not the replayed one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from detectors.base import CAUSES, FORECASTERS
from pipeline.core.types import Anomaly, AnomalyState, EndReason, EventFinding, Partition, Severity
from pipeline.scoring.deviation_course import note_last_value
from pipeline.scoring.deviation_span import begin_span
from pipeline.scoring.provenance import Provenance, Scored
from pipeline.scoring.recent_readings import ReadingsBefore
from pipeline.scoring.usual_range import rows_until_closed, update_deviation

#: Share of the threshold above which the surprisal extends an open anomaly: a detector flags an event once,
#: not each of its rows.
EXTEND_THRESHOLD_RATIO = 0.9

#: Decades of tail probability beyond the threshold from which a peak has each severity.
SEVERITIES = ((6.0, Severity.CRITICAL), (3.0, Severity.MAJOR), (1.0, Severity.WARNING))

#: Half widths of the band beyond its end from which a peak is at least major.
FAR_HALF_WIDTHS = 10.0


def severity_of(surprise: float, alarm_rate: float) -> Severity:
    """Return the severity of a peak from its surprisal (−log10 p) and the configured alarm rate."""
    excess = surprise + float(np.log10(alarm_rate))
    return next((level for least, level in SEVERITIES if excess >= least), Severity.INFO)


class AnomalyTracker:
    """Open anomalies of a stream, by slot.

    A flag opens or extends one. Under the decision "surprise", a surprisal near the threshold
    (``EXTEND_THRESHOLD_RATIO``) extends it.
    """

    def __init__(
        self,
        name_of: Callable[[int], tuple[Partition, str, dict[str, str]]],
        finding_of: Callable[[Scored, int], EventFinding | None] = lambda scored, row: None,
    ) -> None:
        """Start without an anomaly.

        Args:
            name_of: Returns partition, series name and labels of a slot.
            finding_of: Returns a row in words, None in a stream of numbers.
        """
        self._name_of = name_of
        self._finding_of = finding_of
        self._open: dict[int, Anomaly] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, slot: int) -> bool:
        return slot in self._open

    def restore(self, slot: int, anomaly: Anomaly, seq: int) -> None:
        """Continue an open anomaly of the database; ``seq`` is the current point number of its series."""
        # A series whose event-time state was reset counts from zero; the anomaly must still be able to close.
        ahead = max(anomaly.last_flag_seq - seq, 0)
        anomaly.last_flag_seq -= ahead
        anomaly.first_flag_seq -= ahead
        anomaly.told_seq -= ahead
        self._open[slot] = anomaly

    def forget(self, slots: Iterable[int]) -> None:
        for slot in slots:
            self._open.pop(int(slot), None)

    def open_at(self, slot: int) -> Anomaly | None:
        """Return the open anomaly of a slot."""
        return self._open.get(slot)

    def slots(self) -> list[int]:
        """Return the slots that have an open anomaly."""
        return list(self._open)

    def close(self, slot: int, reason: EndReason) -> list[Anomaly]:
        """Close the anomaly of a slot, and return it; the list is empty if none is open."""
        return [self._close(slot, reason)] if slot in self._open else []

    def advance(
        self,
        scored: Scored,
        provenance: Provenance,
        seq_now: NDArray[np.int64],
        before: ReadingsBefore | None = None,
    ) -> list[Anomaly]:
        """Apply the verdicts of a batch, and return the anomalies that changed.

        Args:
            scored: The batch.
            provenance: What the anomalies have in common.
            seq_now: Point counter of each slot after the batch.
            before: The last readings before the batch, None: they are not kept.
        """
        changed: dict[int, Anomaly] = {}
        closed: list[Anomaly] = []
        slots = scored.points.slot
        real = scored.offset >= 0  # a filled point of a gap is no observation
        flag = scored.verdicts.flag
        close_after = _close_after(provenance)
        ends = self._closing_ends(scored)
        for row in np.flatnonzero((flag | ends | _near_threshold(scored, provenance)) & real):
            slot, seq = int(slots[row]), int(scored.seq[row])
            current = self._open.get(slot)
            if ends[row] and not flag[row]:
                if current is not None:
                    changed.pop(slot, None)
                    closed.append(self._close(slot))
                continue
            if not flag[row] and (current is None or seq - current.last_flag_seq > close_after):
                continue
            if current is not None and seq - current.last_flag_seq > close_after:
                closed.append(self._recover(slot, scored, close_after))
                changed.pop(slot, None)
                current = None
            if current is None:
                current = self._open[slot] = self._begin(scored, row, provenance, before)
            self._extend(current, scored, row, provenance)
            changed[slot] = current
            if ends[row]:
                changed.pop(slot)
                closed.append(self._close(slot))
        for slot in [s for s, a in self._open.items() if seq_now[s] - a.last_flag_seq >= close_after]:
            changed.pop(slot, None)
            closed.append(self._recover(slot, scored, close_after))
        for anomaly in changed.values():
            anomaly.revision += 1
        return closed + list(changed.values())

    def _closing_ends(self, scored: Scored) -> NDArray[np.bool_]:
        """Return the ends of sessions (M,) that may close an anomaly."""
        slots, flag = scored.points.slot, scored.verdicts.flag
        if scored.ends is None:
            return np.zeros(len(flag), np.bool_)
        concerned = np.concatenate([np.array(list(self._open), np.int32), slots[flag]])
        return np.asarray(scored.ends & np.isin(slots, concerned))

    def _recover(self, slot: int, scored: Scored, close_after: int) -> Anomaly:
        """Close the anomaly of a slot after ``close_after`` rows without a flag."""
        note_last_value(self._open[slot], scored, slot, close_after)
        return self._close(slot)

    def _close(self, slot: int, reason: EndReason = EndReason.RECOVERED) -> Anomaly:
        anomaly = self._open.pop(slot)
        anomaly.state, anomaly.end_reason = AnomalyState.CLOSED, reason
        anomaly.revision += 1
        return anomaly

    def _begin(
        self, scored: Scored, row: np.intp, provenance: Provenance, before: ReadingsBefore | None
    ) -> Anomaly:
        partition, series, labels = self._name_of(int(scored.points.slot[row]))
        time, offset = int(scored.points.time[row]), int(scored.offset[row])
        nothing = [float("nan")] * len(provenance.channels)
        anomaly = Anomaly(
            id=Anomaly.identify(provenance.stream, series, time),
            stream=provenance.stream,
            series=series,
            labels=labels,
            state=AnomalyState.OPEN,
            severity=Severity.INFO,
            direction="mixed",
            start_ns=time,
            end_ns=time,
            peak_ns=time,
            points=0,
            score=0.0,
            surprise=-1.0,
            channels=list(provenance.channels),
            observed=nothing,
            expected=nothing,
            lower=nothing,
            upper=nothing,
            contribution=[0.0] * len(provenance.channels),
            forecaster=FORECASTERS[0],
            model_version=provenance.model_version,
            config_hash=provenance.config_hash,
            partition=partition,
            first_offset=offset,
            last_offset=offset,
            peak_offset=offset,
            last_flag_seq=int(scored.seq[row]),
            first_flag_seq=int(scored.seq[row]),
        )
        if provenance.decision == "usual_range":
            begin_span(anomaly, scored, row, provenance, before)
        return anomaly

    def _extend(self, anomaly: Anomaly, scored: Scored, row: np.intp, provenance: Provenance) -> None:
        verdicts, points = scored.verdicts, scored.points
        anomaly.end_ns = int(points.time[row])
        anomaly.last_offset = max(anomaly.last_offset, int(scored.offset[row]))
        anomaly.last_flag_seq = int(scored.seq[row])
        anomaly.points += 1
        if provenance.decision == "usual_range":
            update_deviation(anomaly, scored, row, provenance)
            return
        surprise = float(verdicts.surprise[row])
        if surprise <= anomaly.surprise or _returns(anomaly, points.values[row]):
            return
        anomaly.peak_ns, anomaly.peak_offset = anomaly.end_ns, int(scored.offset[row])
        anomaly.score, anomaly.surprise = float(verdicts.score[row]), surprise
        anomaly.event = self._finding_of(scored, int(row))
        anomaly.observed = points.values[row].tolist() if anomaly.event is None else [math.nan]
        anomaly.expected, anomaly.lower, anomaly.upper = (
            a[row].tolist() for a in (verdicts.expected, verdicts.lower, verdicts.upper)
        )
        anomaly.contribution = verdicts.contribution[row].tolist()
        anomaly.forecaster = FORECASTERS[verdicts.forecaster[row]]
        anomaly.cause = CAUSES[verdicts.cause[row]]
        # The return to normal can be rarer than the deviation, in the other direction: a row inside its band
        # does not change the direction.
        if anomaly.points == 1 or _outside(anomaly):
            anomaly.direction = _direction(
                points.values[row], verdicts.expected[row], verdicts.contribution[row]
            )
        anomaly.severity = severity_of(surprise, provenance.alarm_rate)
        if anomaly.severity in (Severity.INFO, Severity.WARNING) and _is_far_outside(anomaly):
            anomaly.severity = Severity.MAJOR


def _close_after(provenance: Provenance) -> int:
    """Return the number of rows without a flag that close an anomaly."""
    if provenance.decision == "usual_range":
        return rows_until_closed(provenance.close_after)
    return provenance.close_after


def _near_threshold(scored: Scored, provenance: Provenance) -> NDArray[np.bool_]:
    """Return the rows (M,) that extend an open anomaly without a flag."""
    if provenance.decision == "usual_range":
        return np.zeros(len(scored.verdicts.flag), np.bool_)
    return np.asarray(
        scored.verdicts.surprise > -EXTEND_THRESHOLD_RATIO * np.log10(provenance.alarm_rate), np.bool_
    )


def _outside(anomaly: Anomaly) -> bool:
    """Return True if a contributing channel lies outside its band at the peak."""
    observed, share = np.array(anomaly.observed), np.array(anomaly.contribution)
    return bool(
        (((observed < anomaly.lower) | (observed > anomaly.upper)) & (share >= 0.25 * share.max())).any()
    )


def _is_far_outside(anomaly: Anomaly) -> bool:
    """Return True if a contributing channel lies far outside its band at the peak.

    The surprisal of a short series cannot grow beyond what the number of its points supports.
    """
    observed, share = np.array(anomaly.observed), np.array(anomaly.contribution)
    lower, upper = np.array(anomaly.lower), np.array(anomaly.upper)
    with np.errstate(all="ignore"):
        far = np.maximum(observed - upper, lower - observed) > FAR_HALF_WIDTHS * 0.5 * (upper - lower)
    return bool((far & (upper > lower) & (share >= 0.25 * share.max())).any())


def _returns(anomaly: Anomaly, values: NDArray[np.float64]) -> bool:
    """Return True if ``values`` lie inside the band that the peak has left.

    The way back can be rarer than the deviation itself, as after one price that is a hundred times too high.
    """
    if anomaly.surprise < 0 or not _outside(anomaly):
        return False
    share = np.array(anomaly.contribution)
    lower, upper = np.array(anomaly.lower), np.array(anomaly.upper)
    back = (values >= lower) & (values <= upper)
    return bool(back[share >= 0.25 * share.max()].all())


def _direction(
    observed: NDArray[np.float64], expected: NDArray[np.float32], contribution: NDArray[np.float32]
) -> str:
    """Return up or down if the contributing channels agree, else mixed."""
    deviation = np.where(contribution >= 0.25 * contribution.max(), observed - expected, 0.0)
    signs = set(np.sign(deviation[np.isfinite(deviation) & (deviation != 0)]).tolist())
    return {1.0: "up", -1.0: "down"}[signs.pop()] if len(signs) == 1 else "mixed"
