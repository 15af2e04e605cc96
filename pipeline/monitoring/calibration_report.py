"""Calibration of a stream on its own recorded history.

The history is scored once more by the champion. Rows in which something was wrong are rows too: a stream with
many faults has more rare rows than the probabilities state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.base import Verdicts
from pipeline.config.schema import Stream
from pipeline.models.champion import champion_of
from pipeline.monitoring.history_replay import RecordedRows, initial_state, replay
from pipeline.training.calibration import CalibrationCounts, calibrated_decades, rows_by_age
from storage.sql.database import Database

POOLED = "all channels"


@dataclass(slots=True)
class AgeCounts:
    """Counts of the young and of the old rows of one channel, or of all together."""

    young: CalibrationCounts = field(default_factory=CalibrationCounts)
    old: CalibrationCounts = field(default_factory=CalibrationCounts)

    def by_age(self) -> tuple[tuple[str, CalibrationCounts], ...]:
        """Return the counts by the name of the age."""
        return ("young", self.young), ("old", self.old)


@dataclass(slots=True)
class CalibrationReport:
    """Counts of a stream by channel; ``POOLED`` holds the rows as they alarm.

    ``interval`` is the share of the values that the interval should hold. ``unread`` rows were beyond the
    limit.
    """

    stream: str
    decision: str
    interval: float
    series: int
    rows: int
    unread: int
    channels: dict[str, AgeCounts]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        names = ("stream", "decision", "interval", "series", "rows")
        ages = {
            channel: {age: counts.as_dict() for age, counts in both.by_age()}
            for channel, both in self.channels.items()
        }
        return {name: getattr(self, name) for name in names} | {"unread_rows": self.unread, "channels": ages}


def measure_calibration(
    database: Database, name: str, stream: Stream, rows: RecordedRows
) -> CalibrationReport:
    """Replay the recorded rows of a stream and count.

    Args:
        database: Database with the champion and the warm start.
        name: Name of the stream.
        stream: Its configuration.
        rows: Its recorded rows.
    """
    champion = champion_of(database, name, stream)
    report = CalibrationReport(
        name,
        champion.provenance.decision,
        stream.interval,
        len(rows.series),
        len(rows),
        rows.unread,
        {channel: AgeCounts() for channel in (*stream.channels, POOLED)},
    )
    for _, scored in replay(champion, initial_state(database, champion, stream, rows), rows):
        real = scored.offset >= 0
        for age, mask in rows_by_age(scored.seq).items():
            _count(report, age, mask & real, scored.verdicts, scored.points.values, scored.seq)
    return report


def _count(
    report: CalibrationReport,
    age: str,
    mask: NDArray[np.bool_],
    verdicts: Verdicts,
    values: NDArray[np.float64],
    seq: NDArray[np.int64],
) -> None:
    pooled: CalibrationCounts = getattr(report.channels[POOLED], age)
    pooled.add_rarity(calibrated_decades(verdicts, report.decision)[mask], seq[mask])
    for c, channel in enumerate(list(report.channels)[:-1]):
        counts: CalibrationCounts = getattr(report.channels[channel], age)
        known = mask & np.isfinite(values[:, c])
        if report.decision == "usual_range":
            counts.add_rarity(verdicts.channel_rarity[known, c], seq[known])
        for one in (counts, pooled):
            one.add_interval(values[known, c], verdicts.lower[known, c], verdicts.upper[known, c])
