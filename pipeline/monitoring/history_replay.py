"""Recorded history scored once more.

The replay gives the verdicts of the current model, from the first recorded row of each series
to the last, under the current configuration or a changed one. Stored verdicts cannot answer for
another setting, since the usual ranges depend on it. A series begins with its warm start, or
without a past, as it did in the daemon before its first recorded row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.base import Points, State
from pipeline.config.schema import Stream
from pipeline.core.errors import InputError
from pipeline.engine.initial_state import initial_states
from pipeline.models.champion import Champion
from pipeline.scoring.provenance import Scored
from pipeline.training.dataset import column_numbers, series_bounds, take_points
from storage.history.reader import HistoryReader
from storage.sql.database import Database

#: Rows of each series in one step of the detector, and rows of all series.
SERIES_BATCH_ROWS, MAX_BATCH_ROWS = 512, 50_000


@dataclass(slots=True)
class RecordedRows:
    """N recorded rows of S series, by series and time.

    Series i has the rows ``first[i] … first[i + 1]``. ``points.slot`` is the place in ``series``. filled (N,)
    are rows that a gap policy has made. ``unread`` is the number of older rows beyond the limit.
    """

    stream: str
    series: list[str]
    first: NDArray[np.int64]
    points: Points
    filled: NDArray[np.bool_]
    unread: int = 0

    def __len__(self) -> int:
        """Return N."""
        return len(self.points)


def read_recorded(path: str, name: str, stream: Stream, most_rows: int) -> RecordedRows:
    """Read the newest recorded rows of a stream, evenly over all series.

    Args:
        path: Folder or URL of the recorded history.
        name: Name of the stream.
        stream: Its configuration.
        most_rows: Rows to read at most.

    Raises:
        InputError: nothing is recorded.
        OSError: the history cannot be read.
    """
    values = [f"value:{channel}" for channel in stream.channels]
    wanted = ["offset", "missed", "every", *values]
    table, unread = HistoryReader(path).read_newest(name, most_rows, columns=wanted)
    if not table.num_rows:
        raise InputError(
            f"stream {name} has no recorded history at {path}: the daemon records it (storage.history must be "
            f"true), a backfill does not; let the daemon run for a while"
        )
    series, first = series_bounds(table)
    x = np.column_stack([column_numbers(table, one) for one in values]).astype(np.float64, copy=False)
    time, missed, every = (column_numbers(table, one) for one in ("time", "missed", "every"))
    slot = np.repeat(np.arange(len(series), dtype=np.int32), np.diff(first))
    points = Points(slot, time, np.ascontiguousarray(x), missed.astype(np.int32), every)
    return RecordedRows(name, series, first, points, column_numbers(table, "offset") < 0, unread)


def initial_state(database: Database, champion: Champion, stream: Stream, rows: RecordedRows) -> State:
    """Return the state of the recorded series before their first rows.

    Args:
        database: Database with the warm start.
        champion: The detector.
        stream: Configuration of the stream.
        rows: Its recorded rows.
    """
    begins = zip(rows.series, rows.points.time[rows.first[:-1]].tolist(), strict=True)
    return initial_states(database, champion, stream, dict(begins))


def replay(champion: Champion, state: State, rows: RecordedRows) -> Iterator[tuple[NDArray[np.intp], Scored]]:
    """Score all rows, and yield row numbers and results batch by batch.

    The rows of a series come in order of time.

    Args:
        champion: The detector.
        state: State of the series before their first rows; it is changed.
        rows: The rows.
    """
    real = np.r_[0, np.cumsum(~rows.filled)]
    seq = real[1:] - real[rows.first[rows.points.slot]]
    each = max(1, min(SERIES_BATCH_ROWS, MAX_BATCH_ROWS // len(rows.series)))
    batch = (np.arange(len(rows)) - rows.first[rows.points.slot]) // each
    order = np.argsort(batch, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(batch[order])) + 1):
        state, verdicts = champion.detector.step(state, take_points(rows.points, at))
        offset = np.where(rows.filled[at], -1, at).astype(np.int64)
        yield at, Scored(take_points(rows.points, at), verdicts, offset, seq[at])
