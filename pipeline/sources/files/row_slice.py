"""Some rows of a file, and what a reader of one file can do.

Rows are numbered from 0, a header line not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Rejected = list[tuple[int, bytes, str]]


@dataclass(slots=True)
class TablePart:
    """Row ``offsets[i]`` of the file is row i of ``table``; rejected ones and blank lines are missing there.

    ``next_row`` follows them all.
    """

    offsets: NDArray[np.int64]
    table: pa.Table
    next_row: int
    rejected: Rejected = field(default_factory=list)

    def split(self, count: int) -> tuple[TablePart, TablePart]:
        """The first ``count`` rows with what was rejected among them, and the rest."""
        cut = int(self.offsets[count])
        head = TablePart(
            self.offsets[:count], self.table.slice(0, count), cut, [r for r in self.rejected if r[0] < cut]
        )
        rest = TablePart(
            self.offsets[count:],
            self.table.slice(count),
            self.next_row,
            [r for r in self.rejected if r[0] >= cut],
        )
        return head, rest


class RowsGoneError(Exception):
    """The row that was sought is behind the end of the file."""


class TableFile(Protocol):
    """One open file. Created with the path; nothing is read before the first call."""

    def fingerprint(self) -> str | None:
        """A name of this very content, the same while rows are only appended.

        None: there is no whole row yet.
        """
        ...

    def count(self) -> int:
        """Return the current number of rows of the file."""
        ...

    def seek(self, row: int) -> None: ...

    def read(self) -> TablePart | None:
        """The next rows, as many as are handy; None at the end. Raises RowsGoneError."""
        ...

    def close(self) -> None: ...
