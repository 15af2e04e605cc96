"""Beginning of a CSV file: where its header is, its delimiter and the names of its columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.config.schema import CsvFormat

_BOM = b"\xef\xbb\xbf"
_MAX_LINES_BEFORE_HEADER = 100
_MAX_LINES_OF_HEADER = 8
_DELIMITERS = (",", ";", "\t", "|")


class Header(NamedTuple):
    """Names of the columns, byte of the first row, delimiter, and the line itself."""

    names: list[str]
    start: int
    delimiter: str
    line: bytes = b""


def is_ascii_compatible(encoding: str) -> bool:
    """Return whether line ends, delimiters and digits have their ASCII bytes."""
    marks = "\n\r,;\t|\"'0123456789.-"
    return marks.encode(encoding, "replace") == marks.encode()


def find_header(head: bytes, form: CsvFormat | None) -> Header:
    """Find the header in the first bytes of a file.

    It is the first line that names all fields of the format; what stands above it is passed over. Without such
    a line it is the first line after ``skip`` that is no comment. If the format sets no delimiter, the one is
    taken by which the line names all fields. Raises UnicodeDecodeError and csv.Error.
    """
    encoding = form.encoding if form is not None and is_ascii_compatible(form.encoding) else "utf-8"
    given = form.delimiter if form is not None else ","
    start = len(_BOM) if head.startswith(_BOM) else 0
    lines = list(_lines(head, start))
    delimiters = (given,) if form is None or "delimiter" in form.model_fields_set else _DELIMITERS
    if lines and lines[0][0].lower().startswith(b"sep=") and len(lines[0][0]) == 5:
        delimiters = (chr(lines[0][0][4]),)
        start, lines = lines[0][1], lines[1:]
    if form is not None:
        for _, end in lines[: form.skip]:
            start = end
        lines = lines[form.skip :]
    needed = _needed(form)
    for delimiter in delimiters:
        for number, (line, _) in enumerate(lines[:_MAX_LINES_BEFORE_HEADER]):
            names = _names(line, delimiter, encoding) if needed else []
            if needed and needed <= set(names):
                return _header(lines, number, form, names, delimiter)
            if needed and (joined := _over_lines(lines, number)):
                names = _names(joined[number][0], delimiter, encoding)
                if needed <= set(names):
                    return _header(joined, number, form, names, delimiter)
    comment = form.comment.encode() if form is not None and form.comment else None
    first = next((n for n, (line, _) in enumerate(lines) if not (comment and line.startswith(comment))), 0)
    line = lines[first][0] if lines else b""
    names = next(csv.reader([line.decode(encoding)], delimiter=delimiters[0]), [])
    if form is not None and form.header is not None and names != form.header:
        return Header(form.header, start if not first else lines[first - 1][1], delimiters[0])
    return _header(lines, first, form, names, delimiters[0]) if lines else Header(names, start, delimiters[0])


def _header(
    lines: list[tuple[bytes, int]], number: int, form: CsvFormat | None, names: list[str], delimiter: str
) -> Header:
    """Return a header line; rows with a delimiter at their end have one more column."""
    start = _after(lines, number, form)
    row = next((line for line, end in lines if end > start), b"")
    if row.endswith(delimiter.encode()) and row.count(delimiter.encode()) == len(names):
        names = [*names, ""]
    return Header(names, start, delimiter, lines[number][0])


def _lines(head: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """Yield (line without its end, byte after it)."""
    for _ in range(10 * _MAX_LINES_BEFORE_HEADER):
        if start >= len(head):
            return
        newline = head.find(b"\n", start)
        end = len(head) if newline < 0 else newline + 1
        yield head[start:end].rstrip(b"\r\n"), end
        start = end


def _over_lines(lines: list[tuple[bytes, int]], first: int) -> list[tuple[bytes, int]]:
    """Return the lines with one of them joined to those that end its quotes.

    Empty if it has no open quote.
    """
    if lines[first][0].count(b'"') % 2 == 0:
        return []
    for end in range(first + 2, min(first + _MAX_LINES_OF_HEADER, len(lines)) + 1):
        joined = b"\n".join(line for line, _ in lines[first:end])
        if joined.count(b'"') % 2 == 0:
            return [*lines[:first], (joined, lines[end - 1][1]), *lines[end:]]
    return []


def _after(lines: list[tuple[bytes, int]], header: int, form: CsvFormat | None) -> int:
    """Return the byte after the header and what is passed over below it."""
    last = header + (form.skip_after_header if form is not None else 0)
    return lines[min(last, len(lines) - 1)][1]


def _needed(form: CsvFormat | None) -> set[str]:
    """Return the columns that a header must name; none if the format names the columns itself."""
    if form is None or form.header is not None:
        return set()
    optional = {form.value_fields.get(one, form.label_fields.get(one, one)) for one in form.optional}
    named = {*form.label_fields.values(), *form.time_fields, *form.value_fields.values()} - optional
    named |= {form.template} if form.template else set()
    return {name for name in named if not name.startswith("$")}


def _names(line: bytes, delimiter: str, encoding: str) -> list[str]:
    try:
        return next(csv.reader([line.decode(encoding)], delimiter=delimiter), [])
    except (UnicodeDecodeError, csv.Error):
        return []
