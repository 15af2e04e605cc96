"""Rows of a complete file in the order of time, for files that do not have that order."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.config.inputs import CsvFormat, JsonFormat
from pipeline.core.timestamps import parse_column
from pipeline.sources.files.row_slice import Rejected, RowsGoneError, TableFile, TablePart

#: Share of steps back in time, within the series, from which a file counts as not ordered. Below it, points
#: that are out of order are late, as they are in a log.
MIN_SHARE_OF_STEPS_BACK = 0.25
BATCH_ROWS = 65_536
#: Rows of the first piece that decide.
DECIDING_ROWS = 5_000

log = logging.getLogger(__name__)


class TimeOrderedFile:
    """File whose rows are sorted by time if its first piece goes back in time.

    Row i is then the i-th in the order of time. The whole file is in memory. Another file is read as it is.
    """

    def __init__(self, file: TableFile, form: CsvFormat | JsonFormat) -> None:
        """Read nothing yet."""
        self._file = file
        self._form = form
        self._sorted: pa.Table | None = None
        self._rejected: Rejected = []
        self._decided = False
        self._row = 0

    def fingerprint(self) -> str | None:
        """Return that of the file."""
        return self._file.fingerprint()

    def count(self) -> int:
        """Return the number of rows of the file."""
        return self._file.count()

    def seek(self, row: int) -> None:
        """Continue at the row with this number in the order of time."""
        self._decide()
        self._row = row
        if self._sorted is None:
            self._file.seek(row)

    def read(self) -> TablePart | None:
        """Return the next rows, None at the end."""
        self._decide()
        if self._sorted is None:
            return self._file.read()
        total = len(self._sorted)
        if self._row >= total:
            if self._row > self.count():
                raise RowsGoneError
            return None
        first, self._row = self._row, min(self._row + BATCH_ROWS, total)
        part = TablePart(np.arange(first, self._row), self._sorted.slice(first, self._row - first), self._row)
        if self._row == total:
            part.rejected = [(total + i, raw, why) for i, (_, raw, why) in enumerate(self._rejected)]
            part.next_row = self._row = max(self.count(), total + len(self._rejected))
        return part

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _decide(self) -> None:
        if self._decided:
            return
        self._decided = True
        self._file.seek(0)
        first = self._file.read()
        if first is not None and self._goes_back(first.table):
            parts = [first]
            while (part := self._file.read()) is not None:
                parts.append(part)
            table = _joined([part.table for part in parts])
            self._rejected = [one for part in parts for one in part.rejected]
            self._sorted = table.take(np.argsort(self._times_of(self._fields(table)), kind="stable"))
            log.info("the rows of a file are not in the order of time; they are sorted")
            return
        self._file.seek(0)

    def _fields(self, table: pa.Table) -> pa.Table:
        """Return the columns of the series and the time."""
        return table

    def _goes_back(self, rows: pa.Table) -> bool:
        table = self._fields(rows.slice(0, DECIDING_ROWS))
        names = set(table.column_names)
        if not set(self._form.time_fields) <= names or len(table) < 2:
            return False
        times, group = self._times_of(table), np.zeros(len(table), np.int64)
        for field in self._form.label_fields.values():
            if field in names:
                column = table.column(field).combine_chunks()
                coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
                codes = coded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False) + 1
                group = group * (len(coded.dictionary) + 1) + codes
        order = np.argsort(group, kind="stable")
        same = np.diff(group[order]) == 0
        good = (times[order][1:] >= 0) & (times[order][:-1] >= 0)
        steps = np.diff(times[order])[same & good]
        return bool(len(steps)) and float((steps < 0).mean()) >= MIN_SHARE_OF_STEPS_BACK

    def _times_of(self, table: pa.Table) -> NDArray[np.int64]:
        columns = [table.column(field).combine_chunks() for field in self._form.time_fields]
        if len(columns) > 1:
            joined = pc.binary_join_element_wise(*(one.cast(pa.string()) for one in columns), " ")
            columns = [joined]
        form = self._form
        return parse_column(columns[0], form.time_unit, form.timezone, form.time_format)


class TimeOrderedLines(TimeOrderedFile):
    """File of lines of JSON, sorted by time if its first lines go back in time."""

    def _fields(self, table: pa.Table) -> pa.Table:
        form = self._form
        names = [*form.time_fields, *form.label_fields.values()]
        rows = [_fields_of(line, names) for line in table.column(0).to_pylist()]
        return pa.table(
            {name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(names)}
        )


def _fields_of(line: bytes, names: Sequence[str]) -> list[str | None]:
    """Return fields of an object as text, None for one that is not there."""
    try:
        record = json.loads(line)
    except ValueError:
        return [None] * len(names)
    found: list[str | None] = []
    for name in names:
        inner = record
        for part in re.split(r"(?<!\\)\.", name):
            inner = inner.get(part.replace("\\.", ".")) if isinstance(inner, dict) else None
        found.append(None if inner is None or isinstance(inner, dict | list) else str(inner))
    return found


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of all tables; a column whose type differs between them becomes text."""
    types = [
        {str(column.type) for column in columns}
        for columns in zip(*(table.columns for table in tables), strict=True)
    ]
    names = tables[0].column_names
    columns = {}
    for place, name in enumerate(names):
        chunks = [table.column(place) for table in tables]
        if len(types[place]) > 1:
            chunks = [chunk.cast(pa.string()) for chunk in chunks]
        columns[name] = pa.chunked_array([piece for chunk in chunks for piece in chunk.chunks])
        if pa.types.is_dictionary(columns[name].type):
            columns[name] = columns[name].unify_dictionaries()
    return pa.table(columns)
