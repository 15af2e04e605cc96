"""File of JSON lines: each line is one record, given as its bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.sources.files.csv_lines import Layout
from pipeline.sources.files.csv_reader import CsvFile
from pipeline.sources.files.row_slice import TablePart

#: Name of the only column of the table.
LINE = "$line"


class LinesFile(CsvFile):
    """Reader of one file of lines without a header."""

    def __init__(self, path: Path, *, follow: bool = False, encoding: str | None = None) -> None:
        """Read nothing yet; ``encoding`` is None if it is like ASCII."""
        super().__init__(path, None, follow=follow)
        if encoding is not None:
            self._read_as_stream(encoding)

    def _header(self, head: bytes) -> tuple[list[str], int]:
        return [LINE], 0

    def _parse(self, text: bytes) -> TablePart:
        assert isinstance(self._layout, Layout)
        lines = text.removesuffix(b"\n").split(b"\n")
        rows = np.arange(self._row, self._row + len(lines))
        filled = [i for i, line in enumerate(lines) if line.strip()]
        table = pa.table({LINE: pa.array([lines[i].rstrip(b"\r") for i in filled], pa.binary())})
        return TablePart(rows[filled], table, self._row + len(lines))
