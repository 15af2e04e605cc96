"""File of all points with verdicts (CSV or Parquet), for ``backfill --scores``."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as papq
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.core.verdict_words import former_forecaster
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer


def column_of(name: str, channel: str, channels: Collection[str]) -> str:
    """Return the column of a quantity of a channel; a single channel is not named."""
    return name if len(channels) == 1 else f"{name}:{channel}"


def verdict_table(scorer: StreamScorer, result: BatchResult) -> pa.Table:
    """Return the M points of a result as a table.

    Columns: series, timestamp, per channel value, expected, lower and upper, then score, surprise, flag,
    guard, forecaster and cause. ``guard`` is deprecated: the forecaster in the words of forewatch 0.1.0.
    A single channel's columns carry no channel name, as in ``forewatch evaluate``.
    """
    from detectors.base import CAUSES, FORECASTERS

    scored = result.scored
    assert scored is not None
    points, verdicts, channels = scored.points, scored.verdicts, scorer.provenance.channels
    slots, which = np.unique(points.slot, return_inverse=True)
    names = pa.array([scorer.name_of(slot) for slot in slots.tolist()], pa.string())
    columns: dict[str, Any] = {
        "series": pa.DictionaryArray.from_arrays(pa.array(which.astype(np.int32)), names),
        "timestamp": pa.array(points.time).cast(pa.timestamp("ns", tz="UTC")),
    }
    for i, channel in enumerate(channels):
        columns[column_of("value", channel, channels)] = points.values[:, i]
        for name in ("expected", "lower", "upper"):
            columns[column_of(name, channel, channels)] = getattr(verdicts, name)[:, i]
    columns |= {"score": verdicts.score, "surprise": verdicts.surprise, "flag": verdicts.flag}
    columns |= {
        "guard": _words(verdicts.forecaster, tuple(map(former_forecaster, FORECASTERS))),
        "forecaster": _words(verdicts.forecaster, FORECASTERS),
        "cause": _words(verdicts.cause, CAUSES),
    }
    return pa.table(columns)


def _words(codes: NDArray[np.uint8], words: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words))


class ScoresWriter:
    """Sink that writes ``path`` in the format of its ending.

    The file is complete once the sink is closed. Without a scored point there is no file. Raises InputError,
    at once or later, if it cannot be written.
    """

    def __init__(self, path: Path, scorer: StreamScorer) -> None:
        self._path = path
        self._scorer = scorer
        self._writer: Any = None
        self._stack = ExitStack()
        with self._writing():
            self._file = self._stack.enter_context(path.open("wb"))

    def close(self) -> None:
        with self._writing():
            self._stack.close()
            if self._writer is None:
                self._path.unlink(missing_ok=True)

    def append(self, result: BatchResult) -> None:
        if result.scored is None:
            return
        table = verdict_table(self._scorer, result)
        if self._path.suffix == ".csv":
            dictionaries = [i for i, f in enumerate(table.schema) if pa.types.is_dictionary(f.type)]
            for i in dictionaries:
                table = table.set_column(i, table.schema.field(i).name, table.column(i).cast(pa.string()))
        with self._writing():
            if self._writer is None:
                write = papq.ParquetWriter if self._path.suffix == ".parquet" else pacsv.CSVWriter
                self._writer = self._stack.enter_context(write(self._file, table.schema))
            self._writer.write_table(table)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"--scores {self._path} cannot be written: {error.strerror or error}") from error


def join_scores(parts: Sequence[Path], path: Path) -> None:
    """Write the rows of several files of scores into one, which is there as a whole or not at all.

    Raises InputError if it cannot be written.
    """
    whole = path.with_name(f"{path.name}.joined")
    try:
        (_join_parquet if path.suffix == ".parquet" else _join_csv)(parts, whole)
        if parts:
            whole.replace(path)
    except OSError as error:
        raise InputError(f"--scores {path} cannot be written: {error.strerror or error}") from error


def _join_parquet(parts: Sequence[Path], path: Path) -> None:
    with ExitStack() as stack:
        writer: Any = None
        for part in parts:
            file = stack.enter_context(papq.ParquetFile(part))
            if writer is None:
                writer = stack.enter_context(papq.ParquetWriter(path, file.schema_arrow))
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group).cast(file.schema_arrow))


def _join_csv(parts: Sequence[Path], path: Path) -> None:
    with ExitStack() as stack:
        out: Any = None
        for part in parts:
            with part.open("rb") as file:
                header = file.readline()
                if out is None:
                    out = stack.enter_context(path.open("wb"))
                    out.write(header)
                shutil.copyfileobj(file, out)
