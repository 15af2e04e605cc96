"""Training data of a stream, with the quarantine applied.

    history segments ────────────────────────────────┐
                                                     ├─► rows by series and time ─► quarantine ─► TrainingData
    any source ─► decode ─► windows ─► detector ─────┘

The recorded history holds the input of the detector, so both ways give the same rows. Everything is arrays
over all rows; Python loops run per incident only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from detectors.base import Detector, Points
from pipeline.config.schema import Stream
from pipeline.core.errors import InputError
from pipeline.decode.known_codes import SeenCodes
from pipeline.engine.warm_start import score_all, warm_start_files, warm_start_source
from pipeline.models.champion import provenance
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import Source
from pipeline.sources.kafka.offset_range import range_source
from pipeline.training.quarantine import ExcludedInterval, ReviewLabel, SeriesRows, quarantine
from storage.history.reader import HistoryReader
from storage.history.segments import Segment, SegmentStore, folder_of, valid

_COLUMNS = ("time", "values", "missed", "every", "flagged", "allowed")
HELD_BACK = 0.2  # share of each series at its end, used by the backtest only


@dataclass(slots=True)
class TrainingData:
    """N rows of S series: series i has the rows ``first[i] … first[i + 1]``, by time.

    time (N,) ns; values (N, C) as received; missed (N,) and every (N,) as in ``Points``; flagged (N,) by the
    model of that time; allowed (N,): may be used for training. ``excluded`` gives the reasons for the other
    rows; unread: number of rows beyond the limit, which were not read; codes: of events that were read from
    their source.
    """

    stream: str
    channels: tuple[str, ...]
    series: list[str]
    first: NDArray[np.int64]
    time: NDArray[np.int64]
    values: NDArray[np.float64]
    missed: NDArray[np.int32]
    every: NDArray[np.int64]
    flagged: NDArray[np.bool_]
    allowed: NDArray[np.bool_]
    excluded: list[ExcludedInterval]
    unread: int = 0
    codes: SeenCodes = field(default_factory=SeenCodes)

    def __len__(self) -> int:
        return len(self.time)

    @property
    def owner(self) -> NDArray[np.int32]:
        """Place of each row's series in ``series`` (N,)."""
        return np.repeat(np.arange(len(self.series), dtype=np.int32), np.diff(self.first))

    @property
    def clean(self) -> NDArray[np.float64]:
        """``values`` with NaN where they must not be used for training."""
        return np.where(self.allowed[:, None], self.values, np.nan)

    def tail(self, share: float = HELD_BACK) -> NDArray[np.bool_]:
        """Return a mask of the last ``share`` of each series' rows (N,)."""
        length = np.diff(self.first)
        history_segments = length - np.round(share * length).astype(np.int64)
        return np.arange(len(self)) - np.repeat(self.first[:-1], length) >= np.repeat(
            history_segments, length
        )

    def points(self, *, clean: bool) -> Points:
        """Return all rows for a detector whose slots are the places in ``series``.

        ``clean``: rows in quarantine are missing.
        """
        return Points(self.owner, self.time, self.clean if clean else self.values, self.missed, self.every)

    def only(self, chosen: Sequence[int]) -> TrainingData:
        """Return the data of some series, by place."""
        names = [self.series[i] for i in sorted(chosen)]
        return self._kept(
            np.isin(self.owner, np.asarray(chosen, np.int32)), names, np.diff(self.first)[sorted(chosen)]
        )

    def head(self, held_back: float = HELD_BACK) -> TrainingData:
        """Return the data without their ``tail``."""
        keep = ~self.tail(held_back)
        return self._kept(keep, self.series, np.bincount(self.owner[keep], minlength=len(self.series)))

    def _kept(self, keep: NDArray[np.bool_], names: list[str], length: NDArray[np.int64]) -> TrainingData:
        first = np.r_[0, np.cumsum(length)].astype(np.int64)
        points, inside = take_points(self.points(clean=False), keep), set(names)
        excluded = [one for one in self.excluded if one.series in inside]
        return _made(
            self.stream, self.channels, names, first, points, self.flagged[keep], self.allowed[keep], excluded
        )


def take_points(points: Points, rows: NDArray[Any]) -> Points:
    """Return some of the points, by number or mask."""
    return Points(
        points.slot[rows], points.time[rows], points.values[rows], points.missed[rows], points.every[rows]
    )


def from_history(
    path: str,
    stream: str,
    channels: Sequence[str],
    review_labels: Sequence[ReviewLabel] = (),
    since_ns: int | None = None,
    until_ns: int | None = None,
    most_points: int | None = None,
    series: Sequence[str] | None = None,
    most_rows: int | None = None,
) -> TrainingData:
    """Read the recorded history of a stream.

    Raises OSError, or an error of the fsspec file system.

    Args:
        path: folder or URL of the history.
        stream: name of the stream.
        channels: names of the channels.
        review_labels: reviews that the quarantine applies.
        since_ns: first time.
        until_ns: end of the span, exclusive.
        most_points: newest points of each series to keep after the quarantine.
        series: names of the series; None for all.
        most_rows: rows to read at most, the newest, evenly over all series. Older rows are then no reference
            for the quarantine.
    """
    values = [f"value:{channel}" for channel in channels]
    wanted = ["flag", "missed", "every", *values]
    reader, unread = HistoryReader(path), 0
    if most_rows is None:
        table = reader.read(stream, series=series, since_ns=since_ns, until_ns=until_ns, columns=wanted)
    else:
        table, unread = reader.read_newest(
            stream, most_rows, since_ns=since_ns, until_ns=until_ns, columns=wanted
        )
    if not table.num_rows:
        return _empty(stream, tuple(channels))
    names, first = series_bounds(table)
    columns = {name: column_numbers(table, name) for name in ("time", *wanted)}
    x = np.column_stack([columns[name] for name in values]).astype(np.float64, copy=False)
    points = Points(
        np.zeros(len(x), np.int32), columns["time"], x, columns["missed"].astype(np.int32), columns["every"]
    )
    data = _assembled(
        stream,
        tuple(channels),
        names,
        first,
        points,
        columns["flag"].astype(np.bool_),
        review_labels,
        most_points,
    )
    data.unread = unread
    return data


def from_source(
    name: str,
    stream: Stream,
    detector: Detector,
    source: Source,
    review_labels: Sequence[ReviewLabel] = (),
    most_points: int | None = None,
) -> TrainingData:
    """Run ``source`` through the decoder, windows and detector of the stream.

    Raises SourceError.

    Args:
        name: name of the stream.
        stream: config of the stream.
        detector: the detector that flags points.
        source: files, or a span of a log.
        review_labels: reviews that the quarantine applies.
        most_points: newest points of each series to keep after the quarantine.
    """
    scorer = StreamScorer(provenance(name, stream, detector), stream, detector)
    scored = [result.scored for result in score_all(scorer, source) if result.scored is not None]
    if not scored:
        return _empty(name, stream.channels)
    names = np.array([text or "" for text in scorer.names()])
    by_name = np.argsort(names, kind="stable")  # as the history is read
    place = np.empty(len(names), np.int32)
    place[by_name] = np.arange(len(names))
    owner = place[np.concatenate([one.points.slot for one in scored])]
    columns = [
        np.concatenate([getattr(one.points, field) for one in scored])
        for field in ("time", "values", "missed", "every")
    ]
    points, flagged = Points(owner, *columns), np.concatenate([one.verdicts.flag for one in scored])
    order = np.lexsort((points.time, owner))
    counts = np.bincount(owner, minlength=len(names))
    keep = np.flatnonzero(counts)
    first = np.r_[0, np.cumsum(counts[keep])].astype(np.int64)
    series = [str(names[by_name[i]]) for i in keep]
    kept, past = take_points(points, order), (review_labels, most_points)
    data = _assembled(name, stream.channels, series, first, kept, flagged[order], *past)
    if scorer.events is not None:
        data.codes = scorer.events.seen()
    return data


def from_files(
    name: str, stream: Stream, path: Path, detector: Detector, review_labels: Sequence[ReviewLabel] = ()
) -> TrainingData:
    """Read past points from a CSV or Parquet file, or from all files of a folder.

    Raises InputError and SourceError.

    Args:
        name: name of the stream.
        stream: config of the stream.
        path: file or folder.
        detector: the detector that flags points.
        review_labels: reviews that the quarantine applies.
    """
    source = warm_start_source(name, stream, warm_start_files(name, path))
    try:
        return from_source(name, stream, detector, source, review_labels)
    finally:
        source.close()


def from_log(
    name: str,
    stream: Stream,
    start_ns: int | None,
    end_ns: int | None,
    detector: Detector,
    review_labels: Sequence[ReviewLabel] = (),
) -> TrainingData:
    """Read a span of the stream's Kafka log.

    Raises InputError for a stream without a Kafka source, SourceError.

    Args:
        name: name of the stream.
        stream: config of the stream.
        start_ns: first time by the log's own clock; None for its beginning.
        end_ns: last time; None for its end.
        detector: the detector that flags points.
        review_labels: reviews that the quarantine applies.
    """
    if stream.source.kafka is None:
        raise InputError(f"stream {name} does not read from Kafka: it has no log to train on")
    source = range_source(name, stream.source.kafka, start_ns, end_ns)
    try:
        return from_source(name, stream, detector, source, review_labels)
    finally:
        source.close()


def join_history(past: TrainingData, recent: TrainingData) -> TrainingData:
    """Put the rows of ``past`` before the first row of each series of ``recent``.

    Series that only ``past`` has are kept whole.
    """
    first_ns = {
        name: int(recent.time[row])
        for name, row in zip(recent.series, recent.first[:-1].tolist(), strict=True)
    }
    begins = np.array([first_ns.get(name, np.iinfo(np.int64).max) for name in past.series], np.int64)
    older = past.time < begins[past.owner]
    names = sorted({*past.series, *recent.series})
    place = {name: i for i, name in enumerate(names)}
    owner = np.concatenate(
        [np.array([place[name] for name in one.series], np.int32)[one.owner] for one in (past, recent)]
    )
    keep = np.r_[older, np.ones(len(recent), np.bool_)]
    columns = [np.concatenate([getattr(one, field) for one in (past, recent)])[keep] for field in _COLUMNS]
    order = np.lexsort((columns[0], owner[keep]))
    time, values, missed, every, flagged, allowed = (column[order] for column in columns)
    first = np.r_[0, np.cumsum(np.bincount(owner[keep], minlength=len(names)))].astype(np.int64)
    excluded = [
        *(one for one in past.excluded if one.start_ns < first_ns.get(one.series, one.end_ns + 1)),
        *recent.excluded,
    ]
    points = Points(owner[keep][order], time, values, missed, every)
    joined = _made(recent.stream, recent.channels, names, first, points, flagged, allowed, excluded)
    joined.codes = past.codes + recent.codes
    return joined


def _assembled(
    stream: str,
    channels: tuple[str, ...],
    series: list[str],
    first: NDArray[np.int64],
    points: Points,
    flagged: NDArray[np.bool_],
    review_labels: Sequence[ReviewLabel],
    most_points: int | None,
) -> TrainingData:
    """Apply the quarantine, then keep the newest points.

    The order matters: older points are the reference of the quarantine.
    """
    allowed, excluded = quarantine(
        SeriesRows(series, first, points.time, points.values, flagged), review_labels
    )
    if most_points is not None:
        length = np.diff(first)
        keep = np.repeat(first[1:], length) - np.arange(first[-1]) <= most_points
        first = np.r_[0, np.cumsum(np.minimum(length, most_points))].astype(np.int64)
        points, flagged, allowed = take_points(points, keep), flagged[keep], allowed[keep]
    return _made(stream, channels, series, first, points, flagged, allowed, excluded)


def _made(
    stream: str,
    channels: tuple[str, ...],
    series: list[str],
    first: NDArray[np.int64],
    points: Points,
    flagged: NDArray[np.bool_],
    allowed: NDArray[np.bool_],
    excluded: list[ExcludedInterval],
) -> TrainingData:
    time, values, missed, every = points.time, points.values, points.missed, points.every
    return TrainingData(
        stream, channels, series, first, time, values, missed, every, flagged, allowed, excluded
    )


def _empty(stream: str, channels: tuple[str, ...]) -> TrainingData:
    none = np.empty(0, np.int64)
    points = Points(none.astype(np.int32), none, np.empty((0, len(channels))), none.astype(np.int32), none)
    flags = none.astype(np.bool_)
    return _made(stream, channels, [], np.zeros(1, np.int64), points, flags, flags.copy(), [])


def series_bounds(table: pa.Table) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of the series and the row at which each begins, then the end."""
    column = table.column("series").unify_dictionaries().combine_chunks()
    code = column.indices.to_numpy()
    begin = np.flatnonzero(np.diff(code, prepend=code[0] - 1))
    names = column.dictionary.take(pa.array(code[begin])).to_pylist()
    return names, np.r_[begin, len(code)].astype(np.int64)


def column_numbers(table: pa.Table, name: str) -> NDArray:
    """Return a column as NumPy; rows without the channel are NaN."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = table.column(name)
    if column.null_count:
        column = pc.fill_null(column, float("nan") if pa.types.is_floating(column.type) else 0)
    return column.to_numpy()


def newest_ns(path: str, stream: str) -> int:
    """Return the time of the newest recorded point of a stream.

    Raises InputError if there is none.
    """
    from pipeline.core.errors import InputError

    newest = [segment.newest_ns for segment in history_segments(path, stream)]
    if not newest:
        raise InputError(
            f"stream {stream} has no history at {path}: let the daemon run for a while "
            f"(storage.history must be true), or name past files with the key `warm_start`"
        )
    return max(newest)


def history_segments(path: str, stream: str) -> list[Segment]:
    """Return the segments of a stream's recorded history."""
    return valid(SegmentStore(path).list(folder_of(stream)))
