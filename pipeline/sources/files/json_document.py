"""File of JSON: one document, or lines of JSON.

A document is one record, so that arrays in it are read like those of any record. A file whose first line is
complete and is followed by others holds one record a line.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.sources.files.compression import UNPACKING_ERRORS, first_bytes, open_stream
from pipeline.sources.files.lines_reader import LINE, LinesFile
from pipeline.sources.files.row_slice import RowsGoneError, TablePart

MAX_DOCUMENT_BYTES = 256 << 20
_TOO_LARGE = f"it has more than {MAX_DOCUMENT_BYTES >> 20} MiB: write one record a line, as .jsonl"
_BEGINNING_BYTES = 1 << 16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonDocument:
    """Reader of a file that is one record."""

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self._path = path
        self._row = 0

    def fingerprint(self) -> str | None:
        """Return a hash of the beginning."""
        return hashlib.sha256(beginning_of(self._path)).hexdigest()[:16]

    def count(self) -> int:
        """Return the number of records."""
        return 1

    def seek(self, row: int) -> None:
        """Read from a row on."""
        self._row = row

    def read(self) -> TablePart | None:
        """Return the document, None if it was read.

        Raises ValueError if it is too large.
        """
        if self._row > 1:
            raise RowsGoneError
        if self._row:
            return None
        self._row = 1
        content = bytearray()
        stream = open_stream(self._path, None)
        try:
            while piece := stream.read1(1 << 20):
                content += piece
                if len(content) > MAX_DOCUMENT_BYTES:
                    raise ValueError(_TOO_LARGE)
        finally:
            stream.close()
        table = pa.table({LINE: pa.array([bytes(content)], pa.binary())})
        return TablePart(np.array([0], np.int64), table, 1)

    def close(self) -> None:
        """Do nothing: no file is open between reads."""


def json_file(path: Path, *, follow: bool) -> LinesFile | JsonDocument:
    """Return the reader of a file of JSON; one that is followed has lines."""
    beginning, encoding = beginning_of(path), wide_encoding(path)
    text = beginning.decode(encoding, "ignore").encode() if encoding else beginning
    if follow or has_lines(text):
        return LinesFile(path, follow=follow, encoding=encoding)
    return JsonDocument(path)


def wide_encoding(path: Path) -> str | None:
    """Return the encoding of a byte order mark, None for one that is like ASCII."""
    try:
        begin = first_bytes(path, 2)
    except UNPACKING_ERRORS:  # the reader says so
        return None
    return "utf-16" if begin in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else None


def beginning_of(path: Path) -> bytes:
    """Return the first bytes of the content."""
    return first_bytes(path, _BEGINNING_BYTES).removeprefix(_BYTE_ORDER_MARK)


def has_lines(content: bytes) -> bool:
    """Return whether each line of a text is a document, as far as the first ones tell."""
    lines = [line for line in content.split(b"\n") if line.strip()]
    if len(lines) < 2:
        return False
    try:
        return isinstance(json.loads(lines[0]), dict | list)
    except ValueError:
        return False
