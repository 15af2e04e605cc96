"""Columns of ``detect`` about anomalies, for streams with the decision "usual_range"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anomaly_text import anomaly_statement
from pipeline.core.types import Anomaly, AnomalyState
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer

#: Columns with one value per anomaly on each of its rows.
_WORDS = ("anomaly", "severity", "direction", "statement")
_NUMBERS = ("observed", "expected", "lower", "upper", "contribution")


class AnomalyColumns:
    """Collects the anomalies of a frame and the series of its rows."""

    def __init__(self, rows: int) -> None:
        """Start with ``rows`` rows of the sorted table, whose positions are the offsets."""
        self._slot = np.full(rows, -1, np.int32)
        self._anomalies: dict[UUID, Anomaly] = {}
        self._ranged: set[int] = set()  # slots in which a row was compared with a usual range

    def add(self, result: BatchResult) -> None:
        """Add the scored rows and the changed anomalies of one batch."""
        if result.scored is None:
            return
        real = result.scored.offset >= 0
        self._slot[result.scored.offset[real]] = result.scored.points.slot[real]
        self._ranged.update(np.unique(result.scored.points.slot[result.scored.verdicts.ratio > 0]).tolist())
        self._anomalies |= {anomaly.id: anomaly for anomaly in result.anomalies}

    def without_ranges(self, scorer: StreamScorer) -> dict[str, int]:
        """Return the series without any usual range, and their numbers of rows."""
        rows = np.bincount(self._slot[self._slot >= 0], minlength=len(scorer.names()))
        return {
            name: int(rows[slot])
            for slot, name in enumerate(scorer.names())
            if name is not None and slot not in self._ranged
        }

    def fill(self, found: dict[str, Any], scorer: StreamScorer, order: NDArray[np.intp]) -> None:
        """Write the columns into ``found``, in place.

        Args:
            found: column → values by row of the frame.
            scorer: knows the names of the series.
            order: row of the frame of each row of the sorted table.
        """
        channels = scorer.provenance.channels
        for name in _WORDS:
            found[name] = np.full(len(order), None, np.object_)
        for channel in channels:
            found[f"observed:{channel}"] = np.full(len(order), np.nan, np.float32)
        by_slot = np.argsort(self._slot, kind="stable")
        begins = np.searchsorted(self._slot[by_slot], np.arange(len(scorer.names()) + 1))
        slots = {name: slot for slot, name in enumerate(scorer.names()) if name is not None}
        for anomaly in self._anomalies.values():
            slot = slots[anomaly.series]
            own = by_slot[begins[slot] : begins[slot + 1]]
            first, last = np.searchsorted(own, (anomaly.first_offset, anomaly.last_offset + 1))
            rows = order[own[first:last]]
            _write(found, rows, anomaly, channels)
            # The peak states the numbers of the anomaly, so it ranks first among its rows.
            highest = np.nanmax(found["surprise"][rows])
            found["surprise"][order[anomaly.peak_offset]] = np.nextafter(highest, np.float32(np.inf))


def _write(found: dict[str, Any], rows: NDArray[np.intp], anomaly: Anomaly, channels: Sequence[str]) -> None:
    ended = anomaly.state is AnomalyState.CLOSED
    words = (anomaly.id, anomaly.severity, anomaly.direction, anomaly_statement(anomaly, ended=ended))
    for name, word in zip(_WORDS, words, strict=True):
        found[name][rows] = str(word)
    for name in _NUMBERS:
        for channel, value in zip(channels, getattr(anomaly, name), strict=True):
            column = f"{name}:{channel}" if len(channels) > 1 or name == "observed" else name
            if column in found:
                found[column][rows] = value
