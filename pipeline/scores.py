"""Every point with its verdict, to a CSV or Parquet file: what ``backfill --scores`` writes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as papq

from pipeline.scoring import Result, Scoring


def verdict_table(scoring: Scoring, result: Result) -> pa.Table:
    """The points of a result, (M,) rows: series, timestamp, score, surprise, flag, guard, and per channel value, expected, lower, upper.

    A single channel's columns carry no channel name, as in ``forewatch evaluate``.
    """
    from detectors.base import GUARDS

    scored = result.scored
    assert scored is not None
    points, verdicts, channels = scored.points, scored.verdicts, scoring.provenance.channels
    slots, which = np.unique(points.slot, return_inverse=True)
    names = pa.array([scoring.name_of(slot) for slot in slots.tolist()], pa.string())
    columns: dict[str, Any] = {
        "series": pa.DictionaryArray.from_arrays(pa.array(which.astype(np.int32)), names),
        "timestamp": pa.array(points.time).cast(pa.timestamp("ns", tz="UTC")),
    }
    for i, channel in enumerate(channels):
        suffix = f":{channel}" if len(channels) > 1 else ""
        columns[f"value{suffix}"] = points.values[:, i]
        for name in ("expected", "lower", "upper"):
            columns[f"{name}{suffix}"] = getattr(verdicts, name)[:, i]
    guards = pa.DictionaryArray.from_arrays(pa.array(verdicts.guard.astype(np.int32)), pa.array(GUARDS))
    return pa.table(columns | {"score": verdicts.score, "surprise": verdicts.surprise, "flag": verdicts.flag, "guard": guards})


class ScoresWriter:
    """A sink that writes ``path``; the ending says how. The file is complete once it is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None
        self._stack = ExitStack()
        self.scoring: Scoring | None = None  # set by who builds the engine: it must exist before the engine does

    def close(self) -> None:
        self._stack.close()

    def append(self, result: Result) -> None:
        if result.scored is None:
            return
        assert self.scoring is not None
        table = verdict_table(self.scoring, result)
        if self._path.suffix == ".csv":
            dictionaries = [i for i, f in enumerate(table.schema) if pa.types.is_dictionary(f.type)]
            for i in dictionaries:
                table = table.set_column(i, table.schema.field(i).name, table.column(i).cast(pa.string()))
        if self._writer is None:
            write = papq.ParquetWriter if self._path.suffix == ".parquet" else pacsv.CSVWriter
            self._writer = self._stack.enter_context(write(self._path, table.schema))
        self._writer.write_table(table)
