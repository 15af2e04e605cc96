"""Rows of a file as records, with the columns that the folders of its path name."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from pipeline.core.types import Partition
from pipeline.sources.base import Records, TableRecords
from pipeline.sources.files.lines_reader import LINE
from pipeline.sources.files.row_slice import TablePart


def folder_columns(path: str) -> dict[str, str]:
    """Return the columns that the folders of a path name: ``site=north/x.parquet``."""
    found = {}
    for folder in Path(path).parts[:-1]:
        name, equals, value = folder.partition("=")
        if name and equals:
            found[unquote(name)] = unquote(value)
    return found


def to_records(partition: Partition, first: int, part: TablePart) -> Records | TableRecords:
    """Return rows as records; lines of JSON and records of Avro as bytes."""
    n = len(part.offsets)
    none = np.full(n, -1, np.int64)
    if part.table.column_names == [LINE]:
        values = part.table.column(LINE).to_pylist()
        return Records(partition, first, part.next_row, part.offsets, none, values, [None] * n)
    table = part.table
    for name, value in folder_columns(partition.topic).items():
        if name not in table.column_names:
            column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value]))
            table = table.append_column(name, column)
    return TableRecords(partition, first, part.next_row, part.offsets, none, table, part.rejected)
