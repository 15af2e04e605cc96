"""Filled gaps and smoothed values of finished series, as a sink and a file.

The rows are those that the event-time rules admit: duplicates and late records are left out, and a row that a
series misses is known by its interval and its calendar. It looks ahead: it is for finished series only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as papq
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.scores_file import column_of

#: Longest gap that is filled, in rows.
MAX_GAP_ROWS: Final = 2_000
#: Rows that are kept in memory at most.
MAX_ROWS: Final = 20_000_000
#: Columns of each channel, with their types.
PARTS: Final[dict[str, type]] = {
    "value": float,
    "filled": bool,
    "smoothed": float,
    "lower": float,
    "upper": float,
    "method": object,
}


class _Rows(NamedTuple):
    """Rows of a batch; series, time, missed, flag (M,), values (M, C)."""

    series: NDArray[np.int64]
    time: NDArray[np.int64]
    values: NDArray[np.float64]
    missed: NDArray[np.int32]
    flag: NDArray[np.bool_]


@dataclass(slots=True)
class FilledSeries:
    """All rows of all series, N in all, in the order of series and time.

    series, time (N,); by channel (N,): value with gaps filled, whether it is filled, the estimate from both
    sides, its range, and how it was made.
    """

    series: NDArray[Any]
    time: NDArray[np.int64]
    channels: dict[str, dict[str, NDArray[Any]]]

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of filled and of still missing values."""
        filled = sum(int(one["filled"].sum()) for one in self.channels.values())
        left = sum(int(np.isnan(one["value"]).sum()) for one in self.channels.values())
        return {"filled": filled, "not_filled": left}

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of a table behind series and time."""
        return {
            column_of(part, name, self.channels): one[part]
            for name, one in self.channels.items()
            for part in PARTS
        }


@dataclass(slots=True)
class GapCollector:
    """Sink that keeps the rows of a run.

    Raises InputError if there are more than ``MAX_ROWS``.
    """

    scorer: StreamScorer
    _batches: list[_Rows] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _rows: int = 0

    def append(self, result: BatchResult) -> None:
        """Keep the rows of a batch."""
        if result.scored is None:
            return
        points = result.scored.points
        self._rows += len(points)
        if self._rows > MAX_ROWS:
            raise InputError(
                f"gaps of more than {MAX_ROWS:,} rows cannot be filled at once: choose fewer series or a "
                "shorter range"
            )
        real = result.scored.offset >= 0  # what a gap policy made up is missing
        values = np.where(real[:, None], points.values, np.nan)
        flag = result.scored.verdicts.flag
        # A slot gets another series after its own has left the memory.
        slots, which = np.unique(points.slot, return_inverse=True)
        names = [self.scorer.name_of(slot) for slot in slots.tolist()]
        series = np.array([self._numbers.setdefault(name, len(self._numbers)) for name in names], np.int64)
        self._batches.append(_Rows(series[which], points.time, values, points.missed, flag))

    def close(self) -> None:
        """Nothing to release."""

    def filled(self) -> FilledSeries:
        """Return all series with their gaps filled."""
        channels = self.scorer.provenance.channels
        if not self._batches:
            nothing: dict[str, NDArray[Any]] = {part: np.empty(0, kind) for part, kind in PARTS.items()}
            return FilledSeries(np.empty(0, object), np.empty(0, np.int64), dict.fromkeys(channels, nothing))
        rows = _Rows(
            *(np.concatenate([getattr(one, name) for one in self._batches]) for name in _Rows._fields)
        )
        self._batches = []
        owner = np.array(list(self._numbers), object)[rows.series]
        order = np.lexsort((rows.time, owner.astype(str)))
        rows, owner = _Rows._make(column[order] for column in rows), owner[order]
        first = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
        grids = [
            _grid(_Rows._make(column[begin:end] for column in rows))
            for begin, end in zip(first, np.r_[first[1:], len(owner)], strict=True)
        ]
        return _estimated(list(owner[first]), grids, channels)


def check_filled_path(path: Path, others: Sequence[Path]) -> None:
    """Raise InputError if the file cannot be written or is one of ``others``."""
    if path.resolve() in {other.resolve() for other in others}:
        raise InputError(f"--filled {path}: this file is read, or written by --scores; give another name")
    if not path.parent.is_dir():
        raise InputError(f"--filled {path} cannot be written: there is no folder {path.parent}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"--filled {path} cannot be written: it is a folder, or its permissions forbid it")


def write_filled(path: Path, filled: FilledSeries) -> None:
    """Write filled series to a CSV or Parquet file. Raises InputError."""
    stamps = pa.array(filled.time).cast(pa.timestamp("ns", tz="UTC"))
    table = pa.table(
        {"series": pa.array(filled.series, pa.string()), "timestamp": stamps}
        | {name: pa.array(column) for name, column in filled.columns().items()}
    )
    try:
        with path.open("wb") as file:
            (papq.write_table if path.suffix == ".parquet" else pacsv.write_csv)(table, file)
    except OSError as error:
        raise InputError(f"--filled {path} cannot be written: {error.strerror or error}") from error


@dataclass(slots=True)
class FilledFile:
    """The file of a run that receives its series with gaps filled, if there is one."""

    path: Path | None
    counts: dict[str, int] = field(default_factory=dict)
    _collector: GapCollector | None = None

    def sinks(self, scorer: StreamScorer) -> list[GapCollector]:
        """Return the sink that keeps the rows, none without a file."""
        if self.path is None:
            return []
        self._collector = GapCollector(scorer)
        return [self._collector]

    def write(self) -> None:
        """Fill the gaps of what was kept, and write the file. Raises InputError."""
        if self.path is not None and self._collector is not None:
            found = self._collector.filled()
            write_filled(self.path, found)
            self.counts = found.counts


class _Grid(NamedTuple):
    """A series with a row for each missing one (G,).

    ``shown`` are the rows of the result. The times of missing rows are spread evenly over their gap.
    """

    time: NDArray[np.int64]
    values: NDArray[np.float64]
    usable: NDArray[np.bool_]
    shown: NDArray[np.bool_]


def _grid(rows: _Rows) -> _Grid:
    """Put a row without values in for each row that the series misses."""
    extra = np.minimum(rows.missed, MAX_GAP_ROWS + 1).astype(np.int64)
    extra[0] = 0
    place = np.arange(len(extra)) + np.cumsum(extra)  # of the rows that are there
    size = int(place[-1]) + 1
    values = np.full((size, rows.values.shape[1]), np.nan)
    usable, shown = np.zeros(size, np.bool_), np.ones(size, np.bool_)
    values[place], usable[place] = rows.values, ~rows.flag
    time = np.interp(np.arange(size), place, (rows.time - rows.time[0]).astype(np.float64))
    time_ns = rows.time[0] + np.round(time).astype(np.int64)
    time_ns[place] = rows.time
    long = np.repeat(extra > MAX_GAP_ROWS, extra + 1)
    long[place] = False
    shown[long] = False  # such a gap is no row of the result
    return _Grid(time_ns, values, usable, shown)


def _estimated(names: list[str], grids: Sequence[_Grid], channels: Sequence[str]) -> FilledSeries:
    """Estimate all channels of all series."""
    from detectors.training.gap_filler import estimate_series

    found: dict[str, dict[str, NDArray[Any]]] = {}
    shown = np.concatenate([grid.shown for grid in grids])
    for number, channel in enumerate(channels):
        estimates = estimate_series(
            [grid.values[:, number] for grid in grids], [grid.usable for grid in grids]
        )
        parts: dict[str, list[NDArray[Any]]] = {part: [] for part in PARTS}
        for grid, one in zip(grids, estimates, strict=True):
            value = grid.values[:, number]
            filled = np.isnan(value) & _fillable(value)
            columns = (
                np.where(filled, one.value, value),
                filled & ~np.isnan(one.value),
                *(np.where(filled | ~np.isnan(value), part, np.nan) for part in one[:3]),
                np.full(len(value), str(one.method), object),
            )
            for part, column in zip(PARTS, columns, strict=True):
                parts[part].append(column)
        found[channel] = {part: np.concatenate(all_of)[shown] for part, all_of in parts.items()}
    series = np.repeat(np.array(names, object), [len(grid.time) for grid in grids])
    return FilledSeries(series[shown], np.concatenate([grid.time for grid in grids])[shown], found)


def _fillable(value: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the rows (G,) of gaps between two values that are not too long."""
    known = np.flatnonzero(~np.isnan(value))
    out = np.zeros(len(value), np.bool_)
    if len(known):
        before = np.searchsorted(known, np.arange(len(value)), side="right") - 1
        inside = (before >= 0) & (before < len(known) - 1)
        gap = known[np.minimum(before + 1, len(known) - 1)] - known[np.maximum(before, 0)] - 1
        out = inside & (gap <= MAX_GAP_ROWS)
    return out
