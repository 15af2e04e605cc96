"""Revision of the verdicts of a backfill by the late points that it found.

The input is read once more, only for the series with late points, and these series are scored in the order of
time by the code that revises the verdicts of a live stream. Without late points nothing is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import structlog
from numpy.typing import NDArray

from pipeline.config.schema import Config
from pipeline.core.types import Anomaly, LateRecord, Partition
from pipeline.decode import Columns, series_key
from pipeline.engine.initial_state import scorer_with_initial_states
from pipeline.engine.warm_start import score_all
from pipeline.models.champion import champion_of
from pipeline.scoring.batch_result import BatchResult
from pipeline.services.revision import points_frame, rescore, revisions_due
from pipeline.sources.base import Source
from storage.results import anomalies
from storage.sql.database import Database

if TYPE_CHECKING:
    import pandas as pd

log = structlog.get_logger(__name__)

#: Most points of series with late points that are in memory at a time, about 2 GB. The input is read several
#: times if there are more.
MAX_POINTS = 20_000_000
#: Offsets of a file are below this number.
_MAX_OFFSET = 1 << 40


class _TooManyPoints(Exception):
    """More points than ``MAX_POINTS``."""


@dataclass(slots=True)
class BackfillRevision:
    """The finished first pass of a backfill.

    reader  name of its positions and of the states of its warm start
    ends    next offset of each partition: later records belong to later runs
    found   ids of its anomalies; those of other runs are not changed
    read    makes a source of the same records
    """

    config: Config
    stream: str
    database: Database
    reader: str
    ends: Mapping[Partition, int]
    found: Collection[UUID]
    read: Callable[[], Source]
    changes: list[Anomaly] = field(default_factory=list)

    def revise(self, late: Sequence[LateRecord]) -> list[Anomaly]:
        """Return the anomalies that changed; retracted ones have no points.

        Raises SourceError and StorageUnavailable.
        """
        series = sorted({one.series for one in late})
        log.info("late points: reading their series once more", stream=self.stream, series=len(series))
        self._revise(series, late)
        return self.changes

    def _revise(self, series: Sequence[str], late: Sequence[LateRecord]) -> None:
        try:
            frames = self._points(set(series), late, MAX_POINTS if len(series) > 1 else None)
        except _TooManyPoints:
            for half in (series[: len(series) // 2], series[len(series) // 2 :]):
                self._revise(half, late)
            return
        for frame in frames:
            right = rescore(self.database, self.config, self.stream, frame, self.reader)
            with self.database.begin() as connection:
                stored = anomalies.of_series(connection, self.stream, sorted(right.with_late))
                changes = revisions_due([one for one in stored if one.id in self.found], right)
                anomalies.upsert(connection, changes)
            self.changes += changes

    def _points(self, series: set[str], late: Sequence[LateRecord], most: int | None) -> list[pd.DataFrame]:
        """Return the points of some series, a frame for each partition.

        Each partition has a state of its own. In a sequence of files a series goes on from file to file, so
        these are one frame.
        """
        stream = self.config.streams[self.stream]
        keys = {series_key(stream, name) for name in series}
        champion = champion_of(self.database, self.stream, stream)
        scorer = scorer_with_initial_states(
            self.database, champion, stream, lambda columns: _of_keys(columns, keys), self.reader
        )
        parts: dict[Partition, list[pd.DataFrame]] = {}
        count = 0
        with closing(self.read()) as source:
            for result in score_all(scorer, source):
                names = np.array(scorer.names(), object)
                for partition, rows in result.rows.items():
                    if result.scored is None or rows.start == rows.stop or partition not in self.ends:
                        continue
                    points = _recorded(result, rows, names, partition, stream.channels)
                    points = points[(points["offset"] >= 0) & (points["offset"] < self.ends[partition])]
                    place = list(self.ends).index(partition)
                    parts.setdefault(partition, []).append(
                        points.assign(arrival=points["offset"] + place * _MAX_OFFSET)
                    )
                    count += len(points)
                if most is not None and count > most:
                    raise _TooManyPoints
        groups = [list(parts)] if scorer.files is not None else [[one] for one in parts]
        return [
            self._frame([part for one in group for part in parts[one]], some, stream.channels)
            for group in groups
            if (some := [one for one in late if one.partition in group and one.series in series])
        ]

    def _frame(
        self, parts: Sequence[pd.DataFrame], late: Sequence[LateRecord], channels: Sequence[str]
    ) -> pd.DataFrame:
        import pandas as pd

        frame = points_frame(pd.concat(parts, ignore_index=True), late, channels)
        places = {partition: place for place, partition in enumerate(self.ends)}
        arrivals = [one.offset + places[one.partition] * _MAX_OFFSET for one in late]
        frame.loc[frame["late"], "arrival"] = arrivals
        return frame[frame["series"].isin({one.series for one in late})].reset_index(drop=True)


def _of_keys(columns: Columns, keys: Collection[str]) -> NDArray[np.bool_]:
    wanted = np.fromiter((key in keys for key in columns.keys.names), np.bool_, len(columns.keys.names))
    return np.asarray(columns.keys.spread(wanted), np.bool_)


def _recorded(
    result: BatchResult,
    rows: slice,
    names: NDArray[np.object_],
    partition: Partition,
    channels: Sequence[str],
) -> pd.DataFrame:
    """Return the scored points of a partition as rows."""
    import pandas as pd

    assert result.scored is not None
    points = result.scored.points
    values = {channel: points.values[rows, i] for i, channel in enumerate(channels)}
    whole = {
        "series": names[points.slot[rows]],
        "time": points.time[rows],
        "offset": result.scored.offset[rows],
    }
    return pd.DataFrame(whole | {"topic": partition.topic, "partition": partition.number} | values)
