"""Why an anomaly was flagged, in words, and whether its verdict still holds when it is computed again from
the stored points.

They are in the history that a daemon writes; else in the file that a backfill, or a stream of files, has read
them from.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from detectors.base import Points
from pipeline.config.schema import Config, Stream, config_hash
from pipeline.core.errors import InputError
from pipeline.core.types import Anomaly
from pipeline.core.verdict_words import CAUSE_TEXTS
from pipeline.decode import series_key
from pipeline.engine.initial_state import initial_states, scorer_with_initial_states
from pipeline.engine.warm_start import results, source_of
from pipeline.models.champion import Champion, champion_of
from pipeline.sources.files.source import ENDINGS
from storage.history.history import HistoryReader
from storage.sql.database import Database

#: How far a recomputed surprise (decades) may lie from the stored one: the state then began elsewhere, and a
#: batched step rounds differently.
TOLERANCE = 0.25


@dataclass(slots=True)
class Explanation:
    """``verdict`` is ``holds``, ``changed`` or ``unknown``; ``reasons`` say why."""

    anomaly: str
    sentence: str
    verdict: str
    reasons: list[str] = field(default_factory=list)
    points: int = 0  # how many stored points of the series the answer rests on
    surprise: float | None = None
    flagged: bool | None = None

    def __str__(self) -> str:
        checked = f"Recomputed from {self.points} stored points: the verdict {_VERDICTS[self.verdict]}."
        return "\n".join([self.sentence, checked, *self.reasons])


_VERDICTS = {"holds": "still holds", "changed": "does not hold any more", "unknown": "cannot be checked"}


def explain(config: Config, database: Database, anomaly: Anomaly) -> Explanation:
    """Recompute the verdict on the peak of ``anomaly`` with today's config and model from the points of its
    series.

    Raises InputError where the stream is no longer configured, SourceError for a file that cannot be read any
    more.
    """
    stream = config.streams.get(anomaly.stream)
    if stream is None:
        raise InputError(f"the config has no stream {anomaly.stream}; it has {', '.join(config.streams)}")
    explanation = Explanation(str(anomaly.id), sentence(anomaly), "unknown")
    if config_hash(stream) != anomaly.config_hash:
        explanation.reasons.append(
            f"The config of the stream has changed since ({anomaly.config_hash} then, {config_hash(stream)} now)."
        )
    champion = champion_of(database, anomaly.stream, stream)
    now = champion.provenance.model_version
    if now != anomaly.model_version:
        explanation.reasons.append(f"Another model decides now ({anomaly.model_version} then, {now} now).")
    again = _from_history(config, database, champion, anomaly) or _from_file(
        database, champion, stream, anomaly
    )
    if again is None:
        explanation.reasons.append(
            "The points are no longer in the history (see storage.keep_history), or were never written: a backfill writes none, "
            "and what it read is no file that is still there."
        )
        return explanation
    explanation.points, explanation.surprise, explanation.flagged = (
        again.points,
        again.surprise,
        again.flagged,
    )
    same = again.flagged and abs(again.surprise - anomaly.surprise) <= max(TOLERANCE, 0.1 * anomaly.surprise)
    explanation.verdict = "holds" if same else "changed"
    if not same:
        explanation.reasons.append(
            f"Surprise {anomaly.surprise:.2f} then, {again.surprise:.2f} now; {'still' if again.flagged else 'no longer'} flagged. "
            "If the points begin later than the series did, or a backfill began with past points, the detector knew more then than it can learn again now."
        )
    return explanation


class _Again(NamedTuple):
    """The verdict on the peak, and how many points of the series were gone through for it."""

    points: int
    surprise: float
    flagged: bool


def _from_history(config: Config, database: Database, champion: Champion, anomaly: Anomaly) -> _Again | None:
    table = HistoryReader(config.history_path).read(
        anomaly.stream, series=anomaly.series, until_ns=anomaly.peak_ns + 1
    )
    if not table.num_rows or table.column("time")[-1].as_py() != anomaly.peak_ns:
        return None
    points = points_of(table, anomaly.channels)
    state = initial_states(
        database, champion, config.streams[anomaly.stream], {anomaly.series: int(points.time[0])}
    )
    _, verdicts = champion.detector.step(state, points)
    return _Again(len(points), float(verdicts.surprise[-1]), bool(verdicts.flag[-1]))


def _from_file(database: Database, champion: Champion, stream: Stream, anomaly: Anomaly) -> _Again | None:
    """From the rows of the file that a backfill, or a stream of files, read the series from.

    Raises SourceError where it cannot be read now.
    """
    path, key, points = anomaly.partition.topic, series_key(stream, anomaly.series), 0
    if not path.endswith(ENDINGS) or not Path(path).is_file():
        return None
    scoring = scorer_with_initial_states(
        database,
        champion,
        stream,
        lambda columns: np.array([one == key for one in columns.keys.flat()], np.bool_),
    )
    with closing(source_of(anomaly.stream, stream, [escape(path)])) as source:
        for scored in (result.scored for result in results(scoring, source) if result.scored is not None):
            if len(rows := np.flatnonzero(scored.points.time == anomaly.peak_ns)):
                peak = int(rows[0])
                return _Again(
                    points + peak + 1, float(scored.verdicts.surprise[peak]), bool(scored.verdicts.flag[peak])
                )
            points += len(scored.points)
    return None


def points_of(table: pa.Table, channels: list[str]) -> Points:
    """The stored points of one series in the detector's form, cadence as it was seen."""
    time = table.column("time").to_numpy().astype(np.int64)
    values = np.column_stack([table.column(f"value:{channel}").to_numpy() for channel in channels])
    every, missed = (table.column(name).to_numpy() for name in ("every", "missed"))
    return Points(
        np.zeros(len(time), np.int32), time, np.ascontiguousarray(values, np.float64), missed, every
    )


def sentence(anomaly: Anomaly) -> str:
    """One sentence: what, when, observed against expected, how rare, why, who says so."""
    channel = int(np.argmax(anomaly.contribution))
    observed, expected, lower, upper = (
        getattr(anomaly, name)[channel] for name in ("observed", "expected", "lower", "upper")
    )
    name = anomaly.channels[channel]
    band = (
        f"{_number(expected)} ({_number(lower)} … {_number(upper)}) was expected"
        if np.isfinite(expected)
        else "nothing was expected yet"
    )
    rare = f"one in {_count(10.0 ** min(anomaly.surprise, 300))} on this series' own past"
    cause = f" Cause: {CAUSE_TEXTS[anomaly.cause]}." if anomaly.cause in CAUSE_TEXTS else ""
    share = f", {anomaly.contribution[channel]:.0%} of it" if len(anomaly.channels) > 1 else ""
    return (
        f"{anomaly.severity.value.upper()} {anomaly.stream}/{anomaly.series} at {_time(anomaly.peak_ns)}: {name}{share} was {_number(observed)} "
        f"where {band}; {rare}.{cause} Forecaster: {anomaly.forecaster}."
    )


def _number(value: float) -> str:
    return "missing" if not np.isfinite(value) else f"{value:.4g}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else f"10^{np.log10(value):.0f}"


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
