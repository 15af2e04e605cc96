"""A Parquet file as rows: row groups are streamed, and labels stay dictionary-encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources.files.row_slice import RowsGoneError, TablePart

BATCH_ROWS = 65_536
_TAIL = 8  # a file ends with the length of its footer (4 bytes, little endian) and "PAR1"


def flat_table(table: pa.Table) -> pa.Table:
    """Return a table with the members of nested columns as columns: ``meta.site``."""
    while any(pa.types.is_struct(kind) for kind in table.schema.types):
        table = table.flatten()
    return table


class ParquetFile:
    """``labels`` are the columns whose texts repeat."""

    def __init__(self, path: Path, labels: Collection[str] = ()) -> None:
        self._path = path
        self._labels = labels
        self._file: pq.ParquetFile | None = None
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._row = 0

    def fingerprint(self) -> str | None:
        """The hash of the footer, which names every column chunk. None where there is no footer (yet)."""
        with open(self._path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - _TAIL, 0))
            tail = file.read()
            if len(tail) < _TAIL or not tail.endswith(b"PAR1"):
                return None
            file.seek(max(size - _TAIL - int.from_bytes(tail[:4], "little"), 0))
            return hashlib.sha256(file.read()).hexdigest()[:16]

    def count(self) -> int:
        return int(self._opened().metadata.num_rows)

    def seek(self, row: int) -> None:
        self._row, self._batches = row, None

    def read(self) -> TablePart | None:
        if self._batches is None:
            self._batches = self._from(self._row)
        batch = next(self._batches, None)
        if batch is None:
            return None
        first, self._row = self._row, self._row + len(batch)
        table = flat_table(pa.Table.from_batches([batch]))
        return TablePart(np.arange(first, self._row), table, self._row)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._batches = None

    def _opened(self) -> pq.ParquetFile:
        if self._file is None:
            texts = [
                f.name
                for f in pq.read_schema(self._path)
                if f.name in self._labels and pa.types.is_string(f.type)
            ]
            self._file = pq.ParquetFile(self._path, read_dictionary=texts)
        return self._file

    def _from(self, row: int) -> Iterator[pa.RecordBatch]:
        file = self._opened()
        if row > file.metadata.num_rows:
            raise RowsGoneError
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        ends = np.cumsum(sizes)
        group = int(np.searchsorted(ends, row, side="right"))
        skip = row - (int(ends[group - 1]) if group else 0)
        for batch in file.iter_batches(BATCH_ROWS, row_groups=range(group, len(sizes))):
            if skip < len(batch):
                yield batch.slice(skip)
            skip = max(skip - len(batch), 0)
