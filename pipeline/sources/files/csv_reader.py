"""CSV file, read in pieces of whole lines, from any row, also while it grows."""

from __future__ import annotations

import csv
import hashlib
import os
from bisect import bisect_right
from contextlib import closing
from pathlib import Path
from typing import IO, cast

from pipeline.config.schema import CsvFormat
from pipeline.core.errors import InputError
from pipeline.sources.files.compression import (
    COMPRESSED,
    UNPACKING_ERRORS,
    ByteStream,
    binary_kind,
    open_stream,
)
from pipeline.sources.files.csv_lines import MAX_LINES_OF_ROW, Layout, parse_lines, whole_rows
from pipeline.sources.files.header import find_header, is_ascii_compatible
from pipeline.sources.files.row_slice import RowsGoneError, TablePart

PIECE_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 26


class CsvFile:
    """Reader of one CSV file.

    With ``follow`` the last line counts only once it ends in a newline. A gzipped file counts as complete.
    """

    def __init__(self, path: Path, form: CsvFormat | None = None, *, follow: bool = False) -> None:
        self._path = path
        self._form = form
        encoding = form.encoding if form is not None else "utf-8"
        # An encoding that is like ASCII is converted piece by piece, another one as a stream.
        like_ascii = is_ascii_compatible(encoding)
        self._wide = None if like_ascii else encoding
        self._encoding = None if not like_ascii or encoding.lower() in ("utf-8", "utf8") else encoding
        self._delimiter = form.delimiter if form is not None else ","
        self._zipped = path.suffix in COMPRESSED or self._wide is not None
        self._line_ends: bytes | None = None  # carriage returns alone, or empty; None: not seen yet
        self._header_line = b""
        self._follow = follow and not self._zipped
        self._stream: IO[bytes] | None = None
        self._layout: Layout | None = None
        self._start = 0  # byte of row 0
        self._row = 0
        # (row, byte) of pieces that were read: a seek starts at one of them
        self._places: list[tuple[int, int]] = []
        self._buffer = b""  # read and not returned yet
        self._skip = 0  # rows to skip before the next piece
        self._error: Exception | None = None  # of a gzipped file, after the bytes that were read
        # what ``count`` found last: (size and time of the file, byte up to there, lines, last byte)
        self._counted: tuple[tuple[int, int], int, int, bytes] | None = None

    def _read_as_stream(self, encoding: str) -> None:
        """Read a file whose bytes are not like ASCII; it counts as complete."""
        self._wide, self._zipped, self._follow = encoding, True, False

    def fingerprint(self) -> str | None:
        with closing(self._open()) as stream:
            head = self._bytes(stream)
        header, start = self._header(head)
        first, newline, _ = head[start:].lstrip(b"\r\n").partition(b"\n")
        if not first or (self._follow and not newline):
            return None
        return hashlib.sha256(repr((header, first.rstrip(b"\r"))).encode()).hexdigest()[:16]

    def count(self) -> int:
        """Count the rows; only those that were appended since the last call are read.

        A gzipped file is read again if it has changed. One that is cut off counts as far as it can be read.
        """
        facts = os.stat(self._path)
        stat = (facts.st_size, facts.st_mtime_ns)
        if self._counted is None or self._counted[0] != stat:
            with closing(self._open()) as stream:
                self._counted = self._count_from(stream, stat)
        _, _, lines, last = self._counted
        return lines + (last != b"\n" and not self._follow)

    def _count_from(
        self, stream: IO[bytes], stat: tuple[int, int]
    ) -> tuple[tuple[int, int], int, int, bytes]:
        if self._counted is not None and not self._zipped and self._counted[1] <= stat[0]:
            _, at, lines, last = self._counted
            stream.seek(at)
        else:
            head = self._bytes(stream)
            _, at = self._header(head)
            lines, last = 0, b"\n"
            if piece := head[at:]:
                lines, last, at = piece.count(b"\n"), piece[-1:], len(head)
            if not self._zipped:
                stream.seek(at)
        while piece := self._bytes(stream, quiet=True):
            lines, last, at = lines + piece.count(b"\n"), piece[-1:], at + len(piece)
        return stat, at, lines, last

    def seek(self, row: int) -> None:
        self._prepare()
        known, byte = self._places[bisect_right(self._places, (row, 1 << 62)) - 1]
        assert self._stream is not None
        self._row, self._skip, self._buffer, self._error = known, row - known, b"", None
        if not self._zipped:
            self._stream.seek(byte)
            return
        # A seek of gzip reads far ahead, and fails at once in a file that is cut off somewhere behind.
        self._stream.close()
        self._stream = self._open()
        while len(self._buffer) < byte and (more := self._bytes(self._stream)):
            self._buffer += more
        self._buffer = self._buffer[byte:]

    def read(self) -> TablePart | None:
        if self._stream is None:
            self.seek(0)
        while (text := self._piece()) is not None:
            lines = text.count(b"\n") + (not text.endswith(b"\n"))
            if self._skip:
                passed = min(self._skip, lines)
                self._skip, self._row, lines = self._skip - passed, self._row + passed, lines - passed
                text = text.split(b"\n", passed)[passed] if lines else b""
            if text:
                part = self._parse(text)
                self._row = part.next_row
                return part
        if self._skip:
            raise RowsGoneError
        return None

    def _parse(self, text: bytes) -> TablePart:
        assert self._layout is not None
        if self._encoding is not None:
            text = text.decode(self._encoding, "replace").encode()
        return parse_lines(text, self._row, self._layout)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._buffer, self._error = None, b"", None

    def _open(self) -> IO[bytes]:
        self._error = None
        if self._zipped:
            return cast(IO[bytes], open_stream(self._path, self._wide))
        return open(self._path, "rb", buffering=0)

    def _bytes(self, stream: IO[bytes], *, quiet: bool = False) -> bytes:
        """Return the next bytes, up to PIECE_BYTES; empty at the end.

        A compressed file that is cut off or damaged gives the bytes before that place first. The error is
        raised by the next call, or never with ``quiet``.
        """
        return self._with_newlines(self._next_bytes(stream, quiet))

    def _with_newlines(self, text: bytes) -> bytes:
        """Return text with newlines, if the first bytes have carriage returns only."""
        if self._line_ends is None and text:
            self._line_ends = b"\r" if b"\r" in text and b"\n" not in text else b""
        return text.replace(b"\r", b"\n") if self._line_ends else text

    def _next_bytes(self, stream: IO[bytes], quiet: bool) -> bytes:
        if not self._zipped:
            return stream.read(PIECE_BYTES)
        if self._error is not None:
            error, self._error = self._error, None
            if quiet:
                return b""
            raise error
        parts, size = [], 0
        try:
            while size < PIECE_BYTES and (part := cast(ByteStream, stream).read1(PIECE_BYTES - size)):
                parts.append(part)
                size += len(part)
        except UNPACKING_ERRORS as error:
            if not parts:
                if quiet:
                    return b""
                raise
            self._error = error
        return b"".join(parts)

    def _prepare(self) -> None:
        """Open the file, read its header, and begin the list of known places."""
        if self._stream is None:
            self._stream = self._open()
        if self._layout is None:
            names, self._start = self._header(self._bytes(self._stream))
            self._layout = _layout_of(names, self._delimiter, self._form, self._header_line)
            self._places = [(0, self._start)]

    def _header(self, head: bytes) -> tuple[list[str], int]:
        """Return (column names, byte of row 0).

        A configured header stands for a header line; one that is there all the same is passed over.
        """
        if kind := binary_kind(head):
            raise InputError(f"{self._path} is no table of text: {kind}")
        try:
            names, start, self._delimiter, line = find_header(head, self._form)
            self._header_line = line.decode(self._encoding or "utf-8").encode()
        except (UnicodeDecodeError, csv.Error) as error:
            advice = "is this a CSV file in UTF-8? `encoding` sets another one"
            raise InputError(f"{self._path}: the header line cannot be read ({error}); {advice}") from error
        return names, start

    def _piece(self) -> bytes | None:
        """The next whole lines; None where there is none (yet)."""
        assert self._stream is not None
        while (cut := self._buffer.rfind(b"\n")) < 0:
            more = self._bytes(self._stream)
            if not more:
                text, self._buffer = self._buffer, self._buffer if self._follow else b""
                return text if text and not self._follow else None
            self._buffer += more
            if len(self._buffer) > MAX_LINE_BYTES:
                raise InputError(
                    f"{self._path}: no end of a line within {MAX_LINE_BYTES >> 20} MiB after row {self._row}; is this a CSV file?"
                )
        cut = self._end_of_rows(cut + 1)
        text, self._buffer = self._buffer[:cut], self._buffer[cut:]
        self._remember(len(text))
        return text

    def _end_of_rows(self, cut: int) -> int:
        """Return the byte up to which the buffered lines are whole rows.

        A row at the end whose text goes on is left for the next piece, if there is one.
        """
        assert self._stream is not None
        while (end := whole_rows(self._buffer[:cut])) != cut and not self._follow:
            more = self._bytes(self._stream)
            if not more:
                break
            self._buffer += more
            if end:
                return end
            cut = self._buffer.rfind(b"\n") + 1
            if self._buffer.count(b"\n") > MAX_LINES_OF_ROW:
                break
        return cut

    def _remember(self, taken: int) -> None:
        """Remember where this piece began, so that a later seek need not start at the top.

        A gzipped file has no cheap way back.
        """
        assert self._stream is not None
        if not self._zipped and not self._skip and self._row > self._places[-1][0]:
            self._places.append((self._row, self._stream.tell() - len(self._buffer) - taken))


def _layout_of(names: list[str], delimiter: str, form: CsvFormat | None, header: bytes) -> Layout:
    """Return the layout; columns whose spelling the format sets stay texts."""
    if form is None:
        return Layout(names, delimiter, frozenset(), frozenset())
    numbers, labels = frozenset(form.value_fields.values()), frozenset(form.label_fields.values())
    texts = frozenset() if form.plain_numbers and form.event_field is None else numbers
    if form.template is not None:
        texts |= {form.template}
    if form.time_format is not None or len(form.time_fields) > 1:
        texts |= frozenset(form.time_fields)
    comment = form.comment.encode() if form.comment else b""
    needed = {*numbers, *labels, *form.time_fields, *([form.template] if form.template else ())}
    least = max((place + 1 for place, name in enumerate(names) if name in needed), default=0)
    return Layout(names, delimiter, numbers - labels - texts, labels, texts - labels, comment, header, least)
