"""Export of recorded scores to a file that other programs read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from detectors.base import FORECASTERS
from pipeline.config.schema import Config
from pipeline.core.errors import InputError
from storage.history.reader import HistoryReader

ENDINGS = (".parquet", ".csv", ".jsonl")
#: Columns that only the detector needs.
_INTERNAL = ("microseconds", "every", "missed", "offset")


def export_scores(config: Config, stream: str, path: Path, since_ns: int | None, until_ns: int | None) -> int:
    """Write the scored points of a stream by series and time, and return their number.

    Args:
        config: The whole configuration.
        stream: Name of the stream.
        path: The file; its ending is the format.
        since_ns: Earliest time.
        until_ns: End of the time range, exclusive.

    Raises:
        InputError: The ending is unknown, or the file cannot be written.
        OSError: The recorded history cannot be read.
    """
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: the ending is the format; write one of {', '.join(ENDINGS)}")
    table = HistoryReader(config.history_path).read(stream, since_ns=since_ns, until_ns=until_ns)
    table = _readable(table)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(table, unfinished, path.suffix)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    return int(table.num_rows)


def _readable(table: pa.Table) -> pa.Table:
    """Return the columns with times, and words in the place of numbers."""
    columns = {}
    for name in table.column_names:
        if name in _INTERNAL:
            continue
        column = table.column(name)
        if name == "time":
            column = column.cast(pa.timestamp("ns", "UTC"))
        elif name == "guard":
            words = np.array(FORECASTERS, object)[column.to_numpy().astype(np.int64)]
            name, column = "forecaster", pa.array(words, pa.string())
        elif name == "model":
            column = pc.cast(column, pa.string())
        columns[name] = column
    return pa.table(columns)


def _write(table: pa.Table, path: Path, ending: str) -> None:
    if ending == ".parquet":
        pq.write_table(table, path, compression="zstd")
    elif ending == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        table.to_pandas().to_json(path, orient="records", lines=True, date_format="iso", date_unit="ns")
