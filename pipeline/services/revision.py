"""Revision of verdicts by late and corrected points.

A late point is stored and not scored, so that the live path stays fast. Afterwards its series is scored again
in the order of time, from the recorded history and the stored late points. Anomalies that changed get their
next revision, those that ended up without cause are retracted, new ones are added. All of it is one
transaction that first marks the late points as used, so that it happens once.

Verdicts of the present belong to the owner of the partition: its open anomalies, and what is newer than the
recorded history, stay as they are. Its detector may not have seen the late point for a while, so the series
is scored again after twice the time, and so on until the point is older than ``revise``.

A backfill uses ``rescore`` and ``revisions_due`` at its end (``pipeline.services.backfill_revision``).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from detectors.base import State
from pipeline.config.inputs import CsvFormat, FormatConfig, MemorySourceConfig, SourceConfig
from pipeline.config.schema import Config, Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.core.types import Anomaly, AnomalyState, LateRecord, Partition
from pipeline.decode import labels_of
from pipeline.engine.initial_state import copy_initial_states, scorer_with_initial_states
from pipeline.models.champion import champion_of
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import TableRecords
from storage.history.reader import HistoryReader
from storage.results import anomalies, late_records
from storage.sql.database import Database

if TYPE_CHECKING:
    import pandas as pd

PARTITION = Partition("revision", 0)
MAX_PENDING = 10_000
#: Time after the last late point until its series are scored again: the recorded history is then on disk.
SETTLED_NS = 15 * 10**9
#: A series whose late points do not end is scored again at least this often.
LONGEST_WAIT_NS = 120 * 10**9
_COMPARED = ("state", "severity", "direction", "cause", "start_ns", "end_ns", "peak_ns", "points")


@dataclass(slots=True)
class Rescored:
    """Verdicts of some series in the order of time.

    with_late       series for which late points count
    newest, oldest  series → time of its newest and oldest point, ns
    seq             series → number of its points
    state           state of the detector after the newest point, one row per series of ``names``
    """

    stream: str
    model_version: str
    anomalies: list[Anomaly]
    with_late: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    oldest: dict[str, int] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    seq: dict[str, int] = field(default_factory=dict)
    state: State = field(default_factory=dict)


@dataclass(slots=True)
class Difference:
    """A stored verdict that is not that of the order of time; None: there is none."""

    series: str
    stored: Anomaly | None
    right: Anomaly | None

    @property
    def kind(self) -> str:
        """Return the change that is due: new, retracted or revised."""
        if self.stored is None or not self.stored.points:
            return "new"
        return "retracted" if self.right is None else "revised"

    def revised(self, now_ns: int) -> Anomaly:
        """Return the next revision of the anomaly, changed at a time of the wall clock."""
        revision = 1 if self.stored is None else self.stored.revision + 1
        if self.right is not None:
            return replace(self.right, revision=revision, revised_ns=now_ns)
        assert self.stored is not None
        return replace(self.stored, points=0, revision=revision, state=AnomalyState.CLOSED, revised_ns=now_ns)


def revisable(stream: Stream) -> bool:
    """Return whether late points of a stream can revise verdicts.

    Aggregates and counters are scored as something else than what late points hold. Events are not revised:
    their sessions have ended.
    """
    return bool(stream.revise) and stream.aggregate is None and not stream.counters and not stream.of_events


def rescore(
    database: Database, config: Config, name: str, points: pd.DataFrame, reader: str | None = None
) -> Rescored:
    """Score series in the order of time.

    Args:
        database: The database, which names the champion.
        config: The whole configuration.
        name: Name of the stream.
        points: Recorded and late points, as ``points_frame`` makes them.
        reader: Name under which the states of the warm start are kept, None for the stream's.
    """
    stream = config.streams[name]
    champion = champion_of(database, name, stream)
    found = Rescored(name, champion.provenance.model_version, [])
    frame = _in_order_of_time(points, stream)
    found.with_late = set(frame.loc[frame["late"], "series"])
    if frame.empty:
        return found
    scorer = StreamScorer(champion.provenance, plain_stream(stream), champion.detector)
    if stream.warm_start is not None:
        first_ns = frame.groupby("series")["time"].min()
        firsts = {str(one): int(ns) for one, ns in first_ns.items()}
        initial = scorer_with_initial_states(database, champion, stream, reader=reader)
        copy_initial_states(initial, scorer, PARTITION, firsts)
    table = pa.table(
        {
            "series": pa.array(frame["series"]),
            "time": pa.array(frame["time"].to_numpy(np.int64), pa.timestamp("ns", "UTC")),
            **{channel: pa.array(frame[channel].to_numpy(np.float64)) for channel in stream.channels},
        }
    )
    rows = len(table)
    whole = TableRecords(PARTITION, 0, rows, np.arange(rows), np.full(rows, -1, np.int64), table)
    changed = scorer.process([whole]).anomalies + scorer.flush({PARTITION: rows}).anomalies
    offsets, topics, numbers = (frame[column].to_numpy() for column in ("offset", "topic", "partition"))
    for anomaly in {one.id: one for one in changed}.values():
        peak = anomaly.peak_offset
        anomaly.labels = labels_of(stream, anomaly.series)
        anomaly.partition = Partition(str(topics[peak]), int(numbers[peak]))
        covered = offsets[_rows_of(frame, anomaly)]
        anomaly.first_offset, anomaly.last_offset = int(covered.min()), int(covered.max())
        anomaly.peak_offset = int(offsets[peak])
        found.anomalies.append(anomaly)
    _note_ends(found, scorer, frame)
    return found


def _rows_of(frame: pd.DataFrame, anomaly: Anomaly) -> NDArray[np.bool_]:
    times = frame["time"].to_numpy(np.int64)
    inside = (times >= anomaly.start_ns) & (times <= anomaly.end_ns)
    return np.asarray(inside & (frame["series"] == anomaly.series).to_numpy(), np.bool_)


def _note_ends(found: Rescored, scorer: StreamScorer, frame: pd.DataFrame) -> None:
    """Fill the times, counts and states of the series."""
    by_series = frame.groupby("series", sort=False)["time"]
    for ends, times in ((found.oldest, by_series.min()), (found.newest, by_series.max())):
        ends.update({str(one): int(ns) for one, ns in times.items()})
    names = scorer.names()
    slots = [slot for slot, one in enumerate(names) if one is not None]
    found.names = [str(names[slot]) for slot in slots]
    counts = scorer.series.state["windows"]["seq"]
    found.seq = {str(names[slot]): int(counts[slot]) for slot in slots}
    found.state = {key: array[slots].copy() for key, array in scorer.series.state["detector"].items()}


def plain_stream(stream: Stream) -> Stream:
    """Return the stream with the format of the recorded history."""
    form = CsvFormat(series=["series"], time="time", values={c: c for c in stream.channels})
    return stream.model_copy(
        update={
            "source": SourceConfig(memory=MemorySourceConfig()),
            "format": FormatConfig(csv=form),
            "lateness": stream.lateness * 0,
            "future": None,
            "counters": [],
            "aggregate": None,
            "every": stream.aggregate.every if stream.aggregate else stream.every,
        }
    )


def points_frame(recorded: pd.DataFrame, late: Sequence[LateRecord], channels: Sequence[str]) -> pd.DataFrame:
    """Return recorded points followed by late ones.

    Columns: series, time (ns), offset, topic, partition, arrival (a number that grows), the channels, and
    late (whether the point was late). ``recorded`` has the same columns without the last.
    """
    import pandas as pd

    columns = ["series", "time", "offset", "topic", "partition", "arrival", *channels]
    more = pd.DataFrame(
        [[one.series, one.time_ns, one.offset, *one.partition, one.offset, *one.values] for one in late],
        columns=columns,
    )
    parts = [recorded[columns].assign(late=False), more.assign(late=True)]
    return pd.concat([one for one in parts if len(one)] or parts[:1], ignore_index=True)


def _in_order_of_time(points: pd.DataFrame, stream: Stream) -> pd.DataFrame:
    """Return the points by time, of each time the last arrival.

    Points that came too late are left out. The age of a late point is relative to the newest point of its
    series that came before it, so that it does not depend on the time of the revision.
    """
    newest = points.sort_values("arrival", kind="stable").groupby("series")["time"].cummax()
    young = newest - points["time"] <= to_nanoseconds(stream.revise)
    frame = points[~points["late"] | young]
    frame = frame.drop_duplicates(["series", "time"], keep=stream.duplicates)
    return frame.sort_values("time", kind="stable", ignore_index=True)


def _recorded_points(
    config: Config, name: str, late: Sequence[LateRecord], series: Sequence[str] | None
) -> pd.DataFrame:
    """Return recorded points of a live stream, and ``late`` ones.

    ``series`` None: all series.
    """
    import pandas as pd

    stream = config.streams[name]
    channels = list(stream.channels)
    names = ["series", "time", "offset", *(f"value:{channel}" for channel in channels)]
    table = HistoryReader(config.history_path).read(name, series=series, columns=names[2:])
    # Without a recorded point the columns of values are unknown.
    frame = table.select(names).to_pandas() if len(table) else pd.DataFrame(columns=names)
    frame["time"] = pd.to_datetime(frame["time"], utc=True).astype("int64") if len(frame) else []
    frame.columns = ["series", "time", "offset", *channels]
    frame["series"] = frame["series"].astype(str)
    frame = frame[frame["offset"] >= 0]
    place = {one.series: one.partition for one in late}
    frame["topic"] = [place[one].topic if one in place else "" for one in frame["series"]]
    frame["partition"] = [place[one].number if one in place else 0 for one in frame["series"]]
    frame["arrival"] = frame["offset"]
    whole = points_frame(frame, late, channels)
    if stream.source.files is not None:  # offsets of several files have no order
        whole.loc[whole["late"], "arrival"] = np.iinfo(np.int64).max
    return whole


def differences(stored: Sequence[Anomaly], right: Rescored, *, with_open: bool = False) -> list[Difference]:
    """Compare stored anomalies of the rescored series with the right ones.

    What the rescored points do not cover is left out.

    Args:
        stored: Anomalies of the rescored series.
        right: The verdicts in the order of time.
        with_open: Compare open anomalies, too. False leaves them to the owner of the partition.
    """
    found: list[Difference] = []
    by_series: dict[str, list[Anomaly]] = defaultdict(list)
    for one in stored:
        by_series[one.series].append(one)
    for name in right.names:
        oldest, newest = right.oldest[name], right.newest[name]
        here = {one.id: one for one in by_series[name]}
        is_open = not with_open and any(
            one.state is AnomalyState.OPEN and one.points for one in here.values()
        )
        wanted = {one.id: one for one in right.anomalies if one.series == name}
        for key, one in here.items():
            settled = with_open or one.state is AnomalyState.CLOSED
            if not (settled and oldest <= one.start_ns and one.end_ns <= newest):
                wanted.pop(key, None)
                continue
            correct = wanted.pop(key, None)
            if correct is not None and correct.state is AnomalyState.OPEN and one.points and not with_open:
                continue  # the owner closed it with points that are not on disk yet
            if differs(one, correct):
                found.append(Difference(name, one, correct))
        found += [
            Difference(name, None, one)
            for one in wanted.values()
            if not (is_open and one.state is AnomalyState.OPEN)
        ]
    return found


def differs(stored: Anomaly, right: Anomaly | None) -> bool:
    """Return whether a stored anomaly is not the right one; None: there is none."""
    if right is None or not stored.points:
        return bool(stored.points) or right is not None
    return any(getattr(stored, name) != getattr(right, name) for name in _COMPARED)


def revisions_due(stored: Sequence[Anomaly], right: Rescored) -> list[Anomaly]:
    """Return the next revision of each wrong anomaly with late points, also if open."""
    wrong = differences(stored, right, with_open=True)
    now_ns = time.time_ns()
    return [one.revised(now_ns) for one in wrong if one.series in right.with_late]


def verify(
    database: Database, config: Config, name: str, since_ns: int | None = None, until_ns: int | None = None
) -> tuple[int, list[Difference]]:
    """Compare the stored verdicts of a stream with those of the order of time.

    Args:
        database: The database.
        config: The whole configuration.
        name: Name of the stream.
        since_ns: Earliest start of an anomaly.
        until_ns: Latest start of an anomaly, exclusive.

    Returns:
        The number of series, and the differences between ``since_ns`` and ``until_ns`` (exclusive).
    """
    with database.read() as connection:
        late = late_records.query(connection, stream=name)[::-1]
    right = rescore(database, config, name, _recorded_points(config, name, late, None))
    with database.read() as connection:
        stored = anomalies.of_series(connection, name, right.names)
    found = []
    for one in differences(stored, right):
        start_ns = (one.stored or one.right).start_ns  # type: ignore[union-attr]
        if (since_ns is None or start_ns >= since_ns) and (until_ns is None or start_ns < until_ns):
            found.append(one)
    return len(right.names), found
