"""Avro container file: each record is one row, given as its JSON.

The schema is in the file. Blocks are read one after the other, so a file to which blocks are appended can be
followed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from pipeline.core.extras import require_formats
from pipeline.core.record_json import encode
from pipeline.sources.files.lines_reader import LINE
from pipeline.sources.files.row_slice import Rejected, RowsGoneError, TablePart

_MAGIC = b"Obj\x01"


class AvroFile:
    """Reader of one file."""

    def __init__(self, path: Path, *, follow: bool = False) -> None:
        """Read nothing yet.

        Args:
            path: The file.
            follow: An incomplete block at the end is waited for; otherwise it is an error.
        """
        require_formats("fastavro", "Avro")
        self._path = path
        self._follow = follow
        self._blocks: _Blocks | None = None
        self._skip = 0  # rows of the next block that were read before
        self._row = 0

    def fingerprint(self) -> str | None:
        """Return a hash of the header, which has a random mark; None while it is incomplete."""
        try:
            blocks = _Blocks(self._path)
        except EOFError:
            return None
        try:
            return hashlib.sha256(blocks.header).hexdigest()[:16]
        finally:
            blocks.close()

    def count(self) -> int:
        """Return the number of records in complete blocks."""
        blocks, rows = _Blocks(self._path), 0
        try:
            while (block := blocks.next(wait=True)) is not None:
                rows += block.num_records
            return rows
        finally:
            blocks.close()

    def seek(self, row: int) -> None:
        """Read from a row on."""
        self.close()
        self._row = row

    def read(self) -> TablePart | None:
        """Return the records of the next block, None at the end.

        Raises:
            RowsGoneError: The file is shorter than the row that was sought.
            ValueError: It is damaged or cut off.
        """
        if self._blocks is None:
            self._blocks = _Blocks(self._path)
            self._skip = self._row
        while (block := self._blocks.next(wait=self._follow)) is not None:
            if block.num_records <= self._skip:
                self._skip -= block.num_records
                continue
            return self._part(block)
        if self._skip:
            raise RowsGoneError
        return None

    def _part(self, block: Any) -> TablePart:
        first = self._row
        rows, values, rejected = [], [], Rejected()
        for number, record in enumerate(list(block)[self._skip :], first):
            try:
                values.append(encode(record))
                rows.append(number)
            except ValueError as error:
                rejected.append((number, repr(record).encode(), str(error)))
        self._row += block.num_records - self._skip
        self._skip = 0
        table = pa.table({LINE: pa.array(values, pa.binary())})
        return TablePart(np.array(rows, np.int64), table, self._row, rejected)

    def close(self) -> None:
        """Close the file; a later read goes on."""
        if self._blocks is not None:
            self._blocks.close()
        self._blocks = None


class _Blocks:
    """Blocks of an open file."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            EOFError: It is incomplete.
            ValueError: The file is no Avro container.
        """
        import fastavro

        self._path = path
        self._file: IO[bytes] = open(path, "rb")  # noqa: SIM115
        try:
            begin = self._file.read(len(_MAGIC))
            if not _MAGIC.startswith(begin):
                raise ValueError("it is no Avro container file: it does not begin with Obj")
            self._file.seek(0)
            try:
                self._reader = fastavro.block_reader(self._file)
            except (EOFError, IndexError, ValueError) as error:  # fastavro has no error for a short header
                raise EOFError(f"the header is incomplete: {error}") from None
            end = self._file.tell()
            self._file.seek(0)
            self.header = self._file.read(end)
        except BaseException:
            self._file.close()
            raise

    def next(self, wait: bool) -> Any:
        """Return the next block, None at the end.

        Args:
            wait: An incomplete block is read later; otherwise it raises ValueError.
        """
        at = self._file.tell()
        try:
            block = next(self._reader, None)
        except (EOFError, IndexError, ValueError) as error:
            self._restart(at)
            if wait:
                return None
            raise ValueError(f"the block at byte {at} is damaged or cut off: {error}") from None
        if block is None:
            self._restart(at)  # blocks may be appended
        return block

    def _restart(self, at: int) -> None:
        """Read blocks from a position on: a reader that has ended does not go on."""
        import fastavro

        self._file.seek(0)
        self._reader = fastavro.block_reader(self._file)
        self._file.seek(at)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
