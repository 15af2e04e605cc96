"""A trial of the sensitivities on the recorded history.

It shows the anomalies that each sensitivity would have raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from pipeline.config.schema import ALARM_RATES, Stream
from pipeline.core.anomaly_text import anomaly_statement
from pipeline.core.durations import SECOND_NS, duration_text, to_nanoseconds
from pipeline.core.iso_times import show_time
from pipeline.core.types import Anomaly, Partition, Severity
from pipeline.core.verdict_words import CAUSE_TEXTS
from pipeline.models.champion import champion_of
from pipeline.monitoring.history_replay import RecordedRows, initial_state, replay
from pipeline.scoring.anomaly_tracker import AnomalyTracker
from storage.sql.database import Database

MONTH_NS = 30 * 86_400_000_000_000
DEFAULT_ROWS = 1_000_000
CONFIGURED = "configured"  # name of a trial of an ``alarm_rate`` that no sensitivity has


@dataclass(frozen=True, slots=True)
class SensitivityTrial:
    """Anomalies of one sensitivity in the span of the report, by time."""

    sensitivity: str
    alarm_rate: float
    configured: bool
    anomalies: list[Anomaly]

    def count(self, severity: Severity) -> int:
        """Return the number of anomalies of a severity."""
        return Counter(one.severity for one in self.anomalies)[severity]


@dataclass(frozen=True, slots=True)
class TrialReport:
    """Trials of a stream on its recorded history.

    since_ns, until_ns: span in which anomalies count. learning_ns: first recorded row. series_months: time
    with rows in the span, in series times months of 30 days. ``unread`` rows were beyond the limit.
    """

    stream: str
    decision: str
    series: int
    rows: int
    unread: int
    learning_ns: int
    since_ns: int
    until_ns: int
    series_months: float
    trials: list[SensitivityTrial]
    units: dict[str, str]

    @property
    def configured(self) -> SensitivityTrial:
        """The trial of the sensitivity in the config."""
        return next(one for one in self.trials if one.configured)

    def rate(self, trial: SensitivityTrial) -> float:
        """Return the anomalies of a trial per series and month."""
        return len(trial.anomalies) / self.series_months if self.series_months else 0.0

    def raised_by(self, anomaly: Anomaly) -> list[str]:
        """Return the sensitivities with an anomaly of the same series and time."""
        return [
            trial.sensitivity
            for trial in self.trials
            if any(_overlap(anomaly, one) for one in trial.anomalies)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "stream": self.stream,
            "decision": self.decision,
            "since": show_time(self.since_ns),
            "until": show_time(self.until_ns),
            "history_from": show_time(self.learning_ns),
            "series": self.series,
            "rows": self.rows,
            "unread_rows": self.unread,
            "series_months": self.series_months,
            "sensitivities": [
                {
                    "sensitivity": trial.sensitivity,
                    "alarm_rate": trial.alarm_rate,
                    "configured": trial.configured,
                    "anomalies": len(trial.anomalies),
                    "per_series_and_month": self.rate(trial),
                    "severities": {one.value: trial.count(one) for one in Severity},
                    "events": [event_values(one, self.units) for one in trial.anomalies],
                }
                for trial in self.trials
            ],
        }


def event_values(anomaly: Anomaly, units: dict[str, str]) -> dict[str, Any]:
    """Return one anomaly as plain JSON."""
    channel = anomaly.channels[anomaly.leading_channel]
    return {
        "series": anomaly.series,
        "start": show_time(anomaly.began_ns),
        "end": show_time(anomaly.lasted_until_ns),
        "duration_seconds": (anomaly.lasted_until_ns - anomaly.began_ns) / 1e9,
        "channel": channel,
        "cause": anomaly.cause,
        "direction": anomaly.direction,
        "severity": anomaly.severity.value,
        "rows": anomaly.readings,
        "statement": anomaly_statement(anomaly, units.get(channel), ended=True)
        or CAUSE_TEXTS.get(anomaly.cause, anomaly.cause),
    }


def event_duration(anomaly: Anomaly) -> str:
    """Return the duration of an anomaly, or one row."""
    lasted_ns = anomaly.lasted_until_ns - anomaly.began_ns
    return duration_text(timedelta(microseconds=lasted_ns / 1000)) if lasted_ns else "1 row"


def event_cells(report: TrialReport, events: Iterable[Anomaly]) -> Sequence[tuple[Any, ...]]:
    """Return the cells of a text table.

    They are start, duration, series, severity, cause, statement, raised by.
    """
    return [
        (
            show_time(one.began_ns // SECOND_NS * SECOND_NS),
            event_duration(one),
            one.series,
            one.severity.value,
            one.cause,
            event_values(one, report.units)["statement"],
            ", ".join(report.raised_by(one)),
        )
        for one in events
    ]


def try_sensitivities(
    database: Database, name: str, stream: Stream, rows: RecordedRows, last: timedelta
) -> TrialReport:
    """Replay ``rows`` once for each sensitivity.

    Args:
        database: Database with the champion and the warm start.
        name: Name of the stream.
        stream: Its configuration.
        rows: Its recorded rows.
        last: Length of the span before the newest row in which anomalies count.
    """
    time = rows.points.time
    until_ns = int(time.max()) + 1
    since_ns = max(until_ns - to_nanoseconds(last), int(time.min()))
    begins, ends = time[rows.first[:-1]], time[rows.first[1:] - 1]
    covered = np.maximum(ends - np.maximum(begins, since_ns), 0).sum()
    return TrialReport(
        name,
        stream.decision,
        len(rows.series),
        len(rows),
        rows.unread,
        int(time.min()),
        since_ns,
        until_ns,
        float(covered) / MONTH_NS,
        [
            SensitivityTrial(
                word,
                rate,
                rate == stream.target_alarm_rate,
                anomalies_at_rate(database, stream, rate, rows, since_ns),
            )
            for word, rate in _rates(stream)
        ],
        stream.alerts.units,
    )


def _rates(stream: Stream) -> Sequence[tuple[str, float]]:
    """Return the sensitivities, and a configured rate of none of them."""
    rates = list(ALARM_RATES.items())
    if stream.target_alarm_rate not in ALARM_RATES.values():
        rates.append((CONFIGURED, stream.target_alarm_rate))
    return sorted(rates, key=lambda pair: pair[1])


def anomalies_at_rate(
    database: Database, stream: Stream, alarm_rate: float, rows: RecordedRows, since_ns: int
) -> list[Anomaly]:
    """Return the anomalies of an alarm rate, by time.

    Args:
        database: Database with the champion and the warm start.
        stream: Configuration of the stream.
        alarm_rate: Alarms per row.
        rows: Its recorded rows.
        since_ns: Earliest beginning.
    """
    stream = stream.model_copy(update={"alarm_rate": alarm_rate, "sensitivity": None})
    champion = champion_of(database, rows.stream, stream)
    partition = Partition(rows.stream, 0)
    tracker = AnomalyTracker(lambda slot: (partition, rows.series[slot], {}))
    found: dict[Any, Anomaly] = {}
    seq_now = np.zeros(len(rows.series), np.int64)
    state = initial_state(database, champion, stream, rows)
    for _, scored in replay(champion, state, rows):
        seq_now[scored.points.slot] = scored.seq  # the last one of each series stays
        found |= {one.id: one for one in tracker.advance(scored, champion.provenance, seq_now)}
    return sorted((one for one in found.values() if one.start_ns >= since_ns), key=lambda a: a.start_ns)


def _overlap(a: Anomaly, b: Anomaly) -> bool:
    return a.series == b.series and a.start_ns <= b.end_ns and b.start_ns <= a.end_ns
