"""Series with late points, scored again in the order of time by a daemon.

Recorded history, late points and the newest points are scored apart from the live series, from an earlier
state on.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import pyarrow as pa

from pipeline.config.schema import Config, Stream
from pipeline.core.types import Anomaly, AnomalyState, LateRecord, Partition
from pipeline.decode import labels_of
from pipeline.engine.initial_state import copy_initial_states, scorer_with_initial_states
from pipeline.models.champion import Champion, champion_of
from pipeline.scoring.provenance import Scored
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.revision import PARTITION, Difference, differs, plain_stream
from pipeline.sources.base import TableRecords
from storage.history.reader import HistoryReader
from storage.results import late_records
from storage.results.late_records import LateEntry
from storage.sql.database import Database

if TYPE_CHECKING:
    import pandas as pd

#: Rows of one step of the detector. Its kernels hold the interpreter lock, and the live path waits for them.
ROWS_PER_STEP = 200
#: Numbers of the peak: equal bit for bit if no point of the series is missing.
_NUMBERS = (
    "score",
    "surprise",
    "ratio",
    "observed",
    "expected",
    "lower",
    "upper",
    "contribution",
    "forecaster",
)

#: Point numbers from which the owner of an open anomaly continues it.
_POINT_NUMBERS = ("first_flag_seq", "last_flag_seq", "told_seq")
#: Points of which a replay keeps the verdicts, the newest ones.
MAX_KEPT_POINTS = 200_000

Pause = Callable[[float], object]
NEVER_NS = np.iinfo(np.int64).min


def go_on_at_once(seconds: float) -> None:
    """Go on at once."""


class SeriesReplay:
    """Some series, scored in the order of time apart from the live ones.

    newest      series → time of its last scored point, ns
    recorded    series → time of its last point in the recorded history, ns
    starts      series → time of the last point in the earlier state from which it starts, ns
    late_times  series → times of its late points, ns, ascending
    kept        points with their verdicts, as far as ``keep`` asked for them
    """

    def __init__(self, name: str, stream: Stream, champion: Champion) -> None:
        """Start without points.

        Args:
            name: Name of the stream.
            stream: The configuration of the stream.
            champion: The model, with a detector of its own.
        """
        self.name, self._stream = name, stream
        self.model_version = champion.provenance.model_version
        self.scorer = StreamScorer(champion.provenance, plain_stream(stream), champion.detector)
        self.newest: dict[str, int] = {}
        self.recorded: dict[str, int] = {}
        self.starts: dict[str, int] = {}
        self.late_times: dict[str, list[int]] = {}
        self.kept: deque[Scored] = deque()
        self._kept_since: int | None = None
        self._kept_points = 0
        self._partitions: dict[str, Partition] = {}
        self._anomalies: dict[UUID, Anomaly] = {}

    def load(self, source: StreamScorer, slots: Mapping[str, int]) -> None:
        """Give series without points their state in another scorer of the stream."""
        table = self.scorer.series
        to, _ = table.find(PARTITION, list(slots))
        for layer, arrays in table.state.items():
            for key, array in arrays.items():
                array[to] = source.series.state[layer][key][list(slots.values())]

    def keep(self, since_ns: int | None) -> None:
        """Keep the points from a time on that are scored from now on; None: keep none."""
        self._kept_since = since_ns

    def feed(self, points: pd.DataFrame, pause: Pause = go_on_at_once) -> None:
        """Score points, in the order of their times.

        Args:
            points: Columns series, time (ns), offset, and one for each channel.
            pause: Called after each step with the CPU time that it has taken, in seconds.
        """
        for first in range(0, len(points), ROWS_PER_STEP):
            started = time.thread_time()
            self._step(points.iloc[first : first + ROWS_PER_STEP])
            pause(time.thread_time() - started)

    def _step(self, points: pd.DataFrame) -> None:
        rows = len(points)
        names, times = points["series"].to_numpy(object), points["time"].to_numpy(np.int64)
        for name, time_ns in zip(names.tolist(), times.tolist(), strict=True):
            self.newest[name] = time_ns
        table = pa.table(
            {
                "series": pa.array(names, pa.string()),
                "time": pa.array(times, pa.timestamp("ns", "UTC")),
                **{c: pa.array(points[c].to_numpy(np.float64)) for c in self._stream.channels},
            }
        )
        offsets = points["offset"].to_numpy(np.int64)
        records = TableRecords(PARTITION, 0, rows, offsets, np.full(rows, -1, np.int64), table)
        result = self.scorer.process([records])
        self._anomalies |= {one.id: one for one in result.anomalies}
        if self._kept_since is not None and result.scored is not None and times.max() >= self._kept_since:
            self.kept.append(result.scored)
            self._kept_points += len(result.scored.offset)
            while self._kept_points > MAX_KEPT_POINTS:
                self._kept_points -= len(self.kept.popleft().offset)

    def place(self, partitions: Mapping[str, Partition]) -> None:
        """Set the partitions of series; an anomaly of another one has none."""
        self._partitions |= partitions

    def partition_of(self, name: str) -> Partition:
        """Return the partition of a series."""
        return self._partitions.get(name, Partition("", 0))

    def anomalies(self) -> list[Anomaly]:
        """Return the anomalies so far, also open ones."""
        for one in self._anomalies.values():
            one.labels = labels_of(self._stream, one.series)
            one.partition = self.partition_of(one.series)
        return list(self._anomalies.values())

    def slots(self) -> dict[str, int]:
        """Return the slot of each series in ``scorer``."""
        return {name: slot for slot, name in enumerate(self.scorer.names()) if name is not None}


@dataclass(slots=True)
class Continuation:
    """Start and end of a replay.

    start  gives series of the replay an earlier state; returns the time of its last point by series, ns
    newer  points that may not be in the recorded history yet, as for ``SeriesReplay.feed``
    pause  called after each step with the CPU time that it has taken, in seconds
    keep_since_ns  the verdicts of the points from here on are kept, None for none
    """

    start: Callable[[SeriesReplay, Champion, Sequence[LateEntry]], dict[str, int]]
    newer: pd.DataFrame
    pause: Pause
    keep_since_ns: int | None = None


def replay_series(
    database: Database,
    config: Config,
    name: str,
    series: Sequence[str],
    continued: Continuation,
) -> SeriesReplay:
    """Score series in the order of time, with all late points that may revise them.

    Args:
        database: The database, which holds the late points and names the champion.
        config: The whole configuration.
        name: Name of the stream.
        series: Names of the series.
        continued: Where to start and to end.
    """
    stream = config.streams[name]
    with database.read() as connection:
        late = late_records.of_series(connection, name, series)
    champion = champion_of(database, name, stream)
    replay = SeriesReplay(name, stream, champion)
    replay.place({one.record.series: one.record.partition for one in late})
    for one in sorted(late, key=lambda entry: entry.record.time_ns):
        replay.late_times.setdefault(one.record.series, []).append(one.record.time_ns)
    replay.keep(continued.keep_since_ns)
    starts = replay.starts = continued.start(replay, champion, late)
    since_ns = min(starts.values()) if len(starts) == len(series) else None
    history = _recorded(config, name, series, since_ns)
    replay.recorded = starts | {
        str(one): int(ns) for one, ns in history.groupby("series")["time"].max().items()
    }
    points = _in_order(stream, history, continued.newer, [one.record for one in late])
    points = points_after(points, starts)
    if stream.warm_start is not None:
        initial = scorer_with_initial_states(database, champion, stream)
        oldest = points.groupby("series")["time"].min().items()
        first_ns = {str(one): int(ns) for one, ns in oldest if one not in starts}
        copy_initial_states(initial, replay.scorer, PARTITION, first_ns)
    replay.feed(points, continued.pause)
    return replay


def _recorded(config: Config, name: str, series: Sequence[str], since_ns: int | None) -> pd.DataFrame:
    """Return the points of the recorded history."""
    import pandas as pd

    channels = list(config.streams[name].channels)
    values = [f"value:{channel}" for channel in channels]
    table = HistoryReader(config.history_path).read(
        name, series=series, since_ns=since_ns, columns=["offset", *values]
    )
    frame = table.select(["series", "time", "offset", *values]).to_pandas()
    frame["time"] = pd.to_datetime(frame["time"], utc=True).astype("int64") if len(frame) else []
    frame.columns = ["series", "time", "offset", *channels]
    frame["series"] = frame["series"].astype(str)
    return frame[frame["offset"] >= 0]


def points_after(points: pd.DataFrame, times_ns: Mapping[str, int]) -> pd.DataFrame:
    """Return the points after a time of each series; a series without one keeps all."""
    limits = np.array([times_ns.get(name, NEVER_NS) for name in points["series"]], np.int64)
    return points[points["time"].to_numpy(np.int64) > limits]


def _in_order(
    stream: Stream, history: pd.DataFrame, newer: pd.DataFrame, late: Sequence[LateRecord]
) -> pd.DataFrame:
    """Return all points by time.

    Of equal times the first counts, or the last (``duplicates``).
    """
    import pandas as pd

    late_rows = [[one.series, one.time_ns, one.offset, *one.values] for one in late]
    parts = [history, newer, pd.DataFrame(late_rows, columns=history.columns)]
    frame = pd.concat([one for one in parts if len(one)] or parts[:1], ignore_index=True)
    frame = frame.drop_duplicates(["series", "time"], keep=stream.duplicates)
    return frame.sort_values("time", kind="stable", ignore_index=True)


def differences_since(
    stored: Sequence[Anomaly], right: SeriesReplay, since_ns: Mapping[str, int]
) -> list[Difference]:
    """Compare stored anomalies of series with the right ones.

    Args:
        stored: Anomalies of the series, also retracted ones.
        right: The series in the order of time, with all of their points.
        since_ns: Series → time of the first point that came late. No anomaly that was closed before it
            differs.
    """
    by_series: dict[str, tuple[list[Anomaly], list[Anomaly]]] = defaultdict(lambda: ([], []))
    for one in stored:
        by_series[one.series][0].append(one)
    for one in right.anomalies():
        by_series[one.series][1].append(one)
    return [
        due for name, ns in since_ns.items() for due in _differences_of(name, *by_series[name], since_ns=ns)
    ]


def _differences_of(
    name: str, stored: Sequence[Anomaly], right: Sequence[Anomaly], *, since_ns: int
) -> list[Difference]:
    here, wanted = {one.id: one for one in stored}, {one.id: one for one in right}
    pairs = ((here.get(key), wanted.get(key)) for key in here | wanted)
    return [
        Difference(name, one, correct)
        for one, correct in pairs
        if (_is_open(one) or max(a.end_ns for a in (one, correct) if a is not None) >= since_ns)
        and (_differs(one, correct) or _numbers(one) != _numbers(correct))
    ]


def _differs(stored: Anomaly | None, right: Anomaly | None) -> bool:
    if stored is None:
        return right is not None
    return differs(stored, right)


def _is_open(anomaly: Anomaly | None) -> bool:
    return anomaly is not None and anomaly.state is AnomalyState.OPEN


def _numbers(anomaly: Anomaly | None) -> list[str] | None:
    """Return the numbers of the peak as texts, in which NaN equals NaN.

    None for a retracted anomaly. An open one goes on by the numbers of its points, which late points shift.
    """
    if anomaly is None or not anomaly.points:
        return None
    names = (*_NUMBERS, *_POINT_NUMBERS) if _is_open(anomaly) else _NUMBERS
    return [repr(getattr(anomaly, name)) for name in names]
