"""The explanation of an anomaly in plain text, and a check of its verdict against the stored points.

The points come from the history that a daemon writes. Without history, they come from the file that a
backfill, or a stream of files, has read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from glob import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from detectors.base import Points
from pipeline.config.schema import Config, Stream
from pipeline.core.anomaly_text import events_before
from pipeline.core.end_text import told_anomaly, told_statement
from pipeline.core.errors import InputError
from pipeline.core.iso_times import show_local_time
from pipeline.core.types import Anomaly, AnomalyState
from pipeline.core.usual_range_text import deviation_text, relation_text
from pipeline.core.verdict_words import CAUSE_TEXTS
from pipeline.decode import series_key
from pipeline.engine.initial_state import initial_states, scorer_with_initial_states
from pipeline.engine.warm_start import score_all, warm_start_source
from pipeline.models.champion import Champion, champion_of
from pipeline.scoring.usual_range import stated_surprise
from pipeline.sources.files.readers import ENDINGS
from storage.history.reader import HistoryReader
from storage.sql.database import Database

#: Largest difference (decades) between a recomputed surprise and the stored one. The two differ where the
#: detector starts from another state, and by the rounding of a batched step.
MAX_SURPRISE_DIFFERENCE = 0.25
#: The same relative to the surprise, or to the ratio under the decision "usual_range".
MAX_RELATIVE_DIFFERENCE = 0.1


class Recheck(StrEnum):
    """Result of computing a verdict again."""

    HOLDS = "holds"
    CHANGED = "changed"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Explanation:
    """The text about an anomaly and the result of the check, with the reasons for the result."""

    anomaly: str
    sentence: str
    verdict: Recheck
    reasons: list[str] = field(default_factory=list)
    points: int = 0  # stored points of the series that the check has used
    surprise: float | None = None
    flagged: bool | None = None

    def __str__(self) -> str:
        checked = f"Recomputed from {self.points} stored points: the verdict {_RECHECK_TEXTS[self.verdict]}."
        return "\n".join([self.sentence, checked, *self.reasons])


_RECHECK_TEXTS = {
    Recheck.HOLDS: "still holds",
    Recheck.CHANGED: "no longer holds",
    Recheck.UNKNOWN: "cannot be checked",
}


def explain(config: Config, database: Database, anomaly: Anomaly) -> Explanation:
    """Recompute the verdict on the peak of ``anomaly`` with the current config and model.

    Raises:
        InputError: the config no longer has the stream.
        SourceError: the file that the points were read from exists but cannot be read.
    """
    stream = config.streams.get(anomaly.stream)
    if stream is None:
        raise InputError(f"the config has no stream {anomaly.stream}; it has {', '.join(config.streams)}")
    explanation = Explanation(
        str(anomaly.id),
        describe_anomaly(anomaly, stream.alerts.units, stream.local_timezone),
        Recheck.UNKNOWN,
    )
    champion = champion_of(database, anomaly.stream, stream)
    explanation.reasons += _changes_since(anomaly, champion)
    history = HistoryReader(config.history_path)
    again = _from_history(history, config, database, champion, anomaly) or _from_file(
        database, champion, stream, anomaly
    )
    explanation.reasons += [
        f"A damaged file of recorded history is skipped: {one}." for one in history.skipped.values()
    ]
    if again is None:
        explanation.reasons.append(
            "The points are not stored: the history no longer has them (see "
            "storage.keep_history), or a backfill "
            "has read them from a file that no longer exists."
        )
        return explanation
    explanation.points, explanation.surprise, explanation.flagged = (
        again.points,
        again.surprise,
        again.flagged,
    )
    same = again.flagged and _is_close(anomaly, again)
    explanation.verdict = Recheck.HOLDS if same else Recheck.CHANGED
    if not same:
        explanation.reasons.append(
            f"{_sizes(anomaly, again)}; {'still' if again.flagged else 'no longer'} flagged. "
            "If the stored points begin later than the series, or a backfill had a warm start, "
            "the detector had seen "
            "more points then than can be read now."
        )
    return explanation


def _changes_since(anomaly: Anomaly, champion: Champion) -> list[str]:
    """Return what differs now from config and model of the anomaly."""
    now, changes = champion.provenance, []
    if now.config_hash != anomaly.config_hash:
        changes.append(
            f"The config of the stream has changed since ({anomaly.config_hash} then, {now.config_hash} now)."
        )
    if now.model_version != anomaly.model_version:
        changes.append(
            f"The stream has another model now ({anomaly.model_version} then, {now.model_version} now)."
        )
    return changes


class _Recomputed(NamedTuple):
    """The recomputed verdict on the peak, and the number of points of the series up to it."""

    points: int
    surprise: float
    flagged: bool
    ratio: float


def _sizes(anomaly: Anomaly, again: _Recomputed) -> str:
    if anomaly.ratio:
        return f"Deviation {anomaly.ratio:.2f} half ranges then, {again.ratio:.2f} now"
    return f"Surprise {anomaly.surprise:.2f} then, {again.surprise:.2f} now"


def _is_close(anomaly: Anomaly, again: _Recomputed) -> bool:
    """Return True if the recomputed size is that of the anomaly: the ratio, or the surprise."""
    if anomaly.ratio:
        return abs(again.ratio - anomaly.ratio) <= MAX_RELATIVE_DIFFERENCE * anomaly.ratio
    return abs(again.surprise - anomaly.surprise) <= max(
        MAX_SURPRISE_DIFFERENCE, MAX_RELATIVE_DIFFERENCE * anomaly.surprise
    )


def _from_history(
    history: HistoryReader, config: Config, database: Database, champion: Champion, anomaly: Anomaly
) -> _Recomputed | None:
    table = history.read(anomaly.stream, series=anomaly.series, until_ns=anomaly.peak_ns + 1)
    if not table.num_rows or table.column("time")[-1].as_py() != anomaly.peak_ns:
        return None
    points = points_of(table, anomaly.channels)
    state = initial_states(
        database, champion, config.streams[anomaly.stream], {anomaly.series: int(points.time[0])}
    )
    _, verdicts = champion.detector.step(state, points)
    # Several events of a series may have the time of the peak.
    rows = np.flatnonzero(points.time == anomaly.peak_ns)
    peak = max(rows, key=lambda row: stated_surprise(verdicts, row))
    return _Recomputed(
        int(peak) + 1,
        stated_surprise(verdicts, peak),
        bool(verdicts.flag[peak]),
        float(verdicts.ratio[peak]),
    )


def _from_file(
    database: Database, champion: Champion, stream: Stream, anomaly: Anomaly
) -> _Recomputed | None:
    """Recompute from the file that a backfill, or a stream of files, has read the series from.

    Raises:
        SourceError: the file cannot be read.
    """
    path, key, points = anomaly.partition.topic, series_key(stream, anomaly.series), 0
    if not path.endswith(ENDINGS) or not Path(path).is_file():
        return None
    scorer = scorer_with_initial_states(
        database,
        champion,
        stream,
        lambda columns: np.array([one == key for one in columns.keys.flat()], np.bool_),
    )
    with closing(warm_start_source(anomaly.stream, stream, [escape(path)])) as source:
        for scored in (result.scored for result in score_all(scorer, source) if result.scored is not None):
            if len(rows := np.flatnonzero(scored.points.time == anomaly.peak_ns)):
                peak = int(rows[0])
                verdicts = scored.verdicts
                return _Recomputed(
                    points + peak + 1,
                    stated_surprise(verdicts, peak),
                    bool(verdicts.flag[peak]),
                    float(verdicts.ratio[peak]),
                )
            points += len(scored.points)
    return None


def points_of(table: pa.Table, channels: list[str]) -> Points:
    """Return the stored points of one series, with the cadence that was detected then."""
    time = table.column("time").to_numpy().astype(np.int64)
    values = np.column_stack([table.column(f"value:{channel}").to_numpy() for channel in channels])
    every, missed = (table.column(name).to_numpy() for name in ("every", "missed"))
    return Points(
        np.zeros(len(time), np.int32), time, np.ascontiguousarray(values, np.float64), missed, every
    )


def describe_anomaly(anomaly: Anomaly, units: Mapping[str, str] | None = None, timezone: str = "") -> str:
    """Return one line: severity, series, time, observed and expected value, rarity, cause, forecaster.

    Under the decision "usual_range": severity, series, time, quantity, usual range, size, start and cause.

    Args:
        anomaly: the anomaly.
        units: channel → unit.
        timezone: time zone of the times beside UTC, "" for UTC only.
    """
    channel = anomaly.leading_channel
    unit, closed = (units or {}).get(anomaly.channels[channel]), anomaly.state is AnomalyState.CLOSED
    beside = relation_text(anomaly, units or {})  # of the peak; the farthest reading has none
    statement, anomaly = told_statement(anomaly, unit, timezone), told_anomaly(anomaly)
    at = _time(anomaly.peak_ns, timezone)
    head = f"{anomaly.severity.value.upper()} {anomaly.stream}/{anomaly.series} at {at}: "
    if anomaly.event is not None:
        return f"{head}{statement}. {_event_details(anomaly)}"
    if statement:
        until = f" to {_time(anomaly.lasted_until_ns, timezone)}" if closed else ""
        since = f"{'From' if closed else 'Since'} {_time(anomaly.began_ns, timezone)}{until}"
        relation = f" At the peak: {beside}." if beside else ""
        return (
            f"{head}{statement}. {since}. Size: {deviation_text(anomaly)}. "
            f"Cause: {CAUSE_TEXTS.get(anomaly.cause, anomaly.cause)}.{relation}"
        )
    observed, expected, lower, upper = (
        getattr(anomaly, name)[channel] for name in ("observed", "expected", "lower", "upper")
    )
    name = anomaly.channels[channel]
    band = (
        f"expected {_number(expected)} ({_number(lower)} … {_number(upper)})"
        if np.isfinite(expected)
        else "without a forecast"
    )
    rarity = f"one in {_count(10.0 ** min(anomaly.surprise, 300))} points of this series"
    cause = f" Cause: {CAUSE_TEXTS[anomaly.cause]}." if anomaly.cause in CAUSE_TEXTS else ""
    share = f" ({anomaly.contribution[channel]:.0%} of the surprise)" if len(anomaly.channels) > 1 else ""
    return f"{head}{name}{share} was {_number(observed)}, {band}. Rarity: {rarity}.{cause} Forecaster: {anomaly.forecaster}."


def _event_details(anomaly: Anomaly) -> str:
    rarity = f"one in {_count(10.0 ** min(anomaly.surprise, 300))}"
    return (
        f"Rarity: {rarity}. Cause: {CAUSE_TEXTS.get(anomaly.cause, anomaly.cause)}. "
        f"Events before: {events_before(anomaly)}."
    )


def _number(value: float) -> str:
    return "missing" if not np.isfinite(value) else f"{value:.4g}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else f"10^{np.log10(value):.0f}"


def _time(ns: int, timezone: str) -> str:
    if timezone:
        return show_local_time(datetime.fromtimestamp(ns / 1e9, UTC), timezone)
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
